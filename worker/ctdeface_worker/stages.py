"""Seconds per stage of a case, and a word to whoever watches when a stage begins."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


class Stages:
    """Adds up the seconds of each stage; a stage may come several times, once per series."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        """Begin with no stage; `notify` hears the name of each stage when it starts."""
        self._notify = notify
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as a stage."""
        self._notify(name)
        begun = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - begun
