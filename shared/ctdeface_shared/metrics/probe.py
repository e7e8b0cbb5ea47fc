"""Looks every few seconds at what a service depends on, in a thread of its own: a dead disk or queue never holds up an answer or a job."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Self, TypeAlias

from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.lifecycle import boundary

PERIOD_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A check that has not ended for so long counts as failed."""

Check: TypeAlias = Callable[[], str | None]
"""Says what is wrong, in a fixed sentence without a name or a path; None when nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """The check that is just being made."""

    name: str
    at: float


class Probe(AbstractContextManager["Probe"]):
    """Makes the checks again and again, and knows what they said last."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        close: Callable[[], None] = lambda: None,
        period_seconds: float = PERIOD_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Remember what to check; nothing begins before the block.

        Args:
            checks: what to look at, by name.
            close: called at the end in the same thread as the checks: connections to SQLite belong
                to one.
            period_seconds: between two rounds.
            stale_seconds: after which a check that has not ended counts as failed.
        """
        self._checks, self._close = dict(checks), close
        self._period, self._stale = period_seconds, stale_seconds
        self._said: dict[str, str | None] = dict.fromkeys(self._checks, "not checked yet")
        self._begun: _Begun | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look no more; a check that hangs is left alone, its thread ends with the process."""
        self._ended.set()
        self._thread.join(timeout=1.0)

    def problems(self) -> dict[str, str]:
        """Return what is wrong, by the name of its check; empty when the service is ready."""
        begun = self._begun
        said = dict(self._said)
        if begun is not None and monotonic() - begun.at > self._stale:
            said[begun.name] = f"no answer for more than {self._stale:g} seconds"
        return {name: problem for name, problem in said.items() if problem is not None}

    def _run(self) -> None:
        while not self._ended.is_set():
            for name, check in self._checks.items():
                self._begun = _Begun(name=name, at=monotonic())
                said = boundary(partial(_ask, check))
                self._said[name] = (
                    "the check itself failed" if isinstance(said, Exception) else said
                )
                self._begun = None
            self._ended.wait(self._period)
        boundary(self._close)


def _ask(check: Check) -> str | None:
    try:
        return check()
    except (
        OSError,
        CtDefaceError,
    ) as error:  # expected of what goes away; its own words may hold a path
        return f"it failed with {type(error).__name__}"
