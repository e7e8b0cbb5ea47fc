"""Callbacks that cannot cost a job: what they raise is logged and forgotten."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec

from ctdeface_shared.lifecycle import boundary

Given = ParamSpec("Given")


def harmless(callback: Callable[Given, None]) -> Callable[Given, None]:
    """Return the same callback, which never raises."""

    def call(*args: Given.args, **named: Given.kwargs) -> None:
        boundary(partial(callback, *args, **named))

    return call
