"""Timing of the stages of a case."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, time


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """One run of a stage.

    Attributes:
        stage: its name.
        begun_at: seconds since the epoch.
        seconds: duration.
    """

    stage: str
    begun_at: float
    seconds: float


class Stages:
    """Timer of stages, which may run once per series."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        """Call `notify` when a stage begins."""
        self._notify = notify
        self.seconds: dict[str, float] = defaultdict(float)
        self.runs: list[StageRun] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as a run of the stage."""
        self._notify(name)
        begun, begun_at = perf_counter(), time()
        try:
            yield
        finally:
            seconds = perf_counter() - begun
            self.seconds[name] += seconds
            self.runs.append(StageRun(stage=name, begun_at=begun_at, seconds=seconds))
