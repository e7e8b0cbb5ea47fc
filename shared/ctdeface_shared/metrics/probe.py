"""Periodic checks of what a service needs.

They run in a thread of their own, so an unreachable disk or queue delays no request and no job.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import Self, TypeAlias

from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.lifecycle import boundary

PERIOD_SECONDS = 5.0
STALE_SECONDS = 60.0
"""Seconds after which a check that has not ended counts as failed."""

Check: TypeAlias = Callable[[], str | None]
"""Returns the problem, without names and paths, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """The check that is running."""

    name: str
    since: float


class Probe(AbstractContextManager["Probe"]):
    """A thread that repeats checks and keeps their results."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        warnings: Mapping[str, Check] = MappingProxyType({}),
        close: Callable[[], None] = lambda: None,
        period_seconds: float = PERIOD_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Prepare the thread, which begins with the block.

        Args:
            checks: the checks by name.
            warnings: checks whose problems need attention but do not make the service unready.
            close: called at the end in the thread of the checks, because a connection to SQLite
                belongs to one thread.
            period_seconds: pause between two rounds.
            stale_seconds: time after which a check that has not ended counts as failed.
        """
        self._checks, self._close = {**checks, **warnings}, close
        self._advisory = frozenset(warnings)
        self._period, self._stale = period_seconds, stale_seconds
        self._results: dict[str, str | None] = {
            **dict.fromkeys(checks, "not checked yet"),
            **dict.fromkeys(warnings),
        }
        self._running: _Running | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the thread; a hanging check ends with the process."""
        self._ended.set()
        self._thread.join(timeout=1.0)

    def problems(self) -> dict[str, str]:
        """Return the problems by check; empty if the service is ready."""
        return {name: text for name, text in self._found().items() if name not in self._advisory}

    def warnings(self) -> dict[str, str]:
        """Return what needs attention although the service may be ready, by check."""
        return {name: text for name, text in self._found().items() if name in self._advisory}

    def _found(self) -> dict[str, str]:
        running = self._running
        results = dict(self._results)
        if running is not None and monotonic() - running.since > self._stale:
            results[running.name] = f"no answer for more than {self._stale:g} seconds"
        return {name: problem for name, problem in results.items() if problem is not None}

    def _run(self) -> None:
        while not self._ended.is_set():
            for name, check in self._checks.items():
                self._running = _Running(name=name, since=monotonic())
                result = boundary(partial(_run_check, check))
                if isinstance(result, Exception):
                    result = "the check itself failed"
                self._results[name] = result
                self._running = None
            self._ended.wait(self._period)
        boundary(self._close)


def _run_check(check: Check) -> str | None:
    try:
        return check()
    except (OSError, CtDefaceError) as error:  # its text may contain a path
        return f"it failed with {type(error).__name__}"
