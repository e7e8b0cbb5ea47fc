"""What the looks of the watcher leave out, and when it is tried again.

Each case and each report has a boundary of its own: its error is noted, and the others go on. A
failure of queue, ledger or settings concerns all cases and ends the look.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from ctdeface_shared import logs
from ctdeface_shared.errors import BrokerUnavailable, ConfigurationError, StorageUnavailable
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.storage.bounded import DamagedFile
from ctdeface_shared.storage.skipped import Skipped, skipped

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 2.0
"""Time until a failed case is tried again; it doubles with every failure."""
LONGEST_PAUSE_SECONDS = 600.0
_OF_ALL = (BrokerUnavailable, ConfigurationError, StorageUnavailable)

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """A case or file that failed last time.

    Attributes:
        skipped: what failed and why.
        failures: number of failures in a row.
        again_at: when it is tried again, monotonic seconds.
    """

    skipped: Skipped
    failures: int
    again_at: float


@dataclass(slots=True)
class Skips:
    """What was left out, from one look to the next.

    Attributes:
        on_skip: called with the code of each failure.
    """

    on_skip: Callable[[str], None] = lambda _code: None
    _failed: dict[tuple[str, str], _Failed] = field(default_factory=dict)

    @property
    def found(self) -> tuple[Skipped, ...]:
        """Return what is left out now, in the order of place and name."""
        return tuple(self._failed[key].skipped for key in sorted(self._failed))

    def attempt(
        self, place: str, name: str, work: Callable[[], Result], otherwise: Result
    ) -> Result:
        """Run the task of one case or file, unless it failed recently.

        Args:
            place: folder of the spool, such as "taken".
            name: name of the case or file in it.
            work: the task.
            otherwise: result if the task failed or waits for its next attempt.

        Raises:
            TransientError: queue or ledger cannot be used now, which concerns every case.
            ConfigurationError: the operator must change something first.
        """
        earlier = self._failed.get((place, name))
        if earlier is not None and monotonic() < earlier.again_at:
            return otherwise

        def with_known_errors() -> Result | Skipped:
            try:
                return work()
            except (OSError, RecursionError, DamagedFile) as error:  # no bug, so no traceback
                return skipped(place, name, error)

        result = boundary(with_known_errors)
        if isinstance(result, _OF_ALL):
            raise result
        if isinstance(result, Exception):
            result = skipped(place, name, result)
        if isinstance(result, Skipped):
            self.add(result, name)
            return otherwise
        self._failed.pop((place, name), None)
        return result

    def add(self, one: Skipped, name: str = "") -> None:
        """Note a failure.

        Args:
            one: what failed and why.
            name: its whole name if `one` has a shortened one.
        """
        key = (one.place, name or one.name)
        earlier = self._failed.get(key)
        failures = earlier.failures + 1 if earlier else 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 20), LONGEST_PAUSE_SECONDS)
        self._failed[key] = _Failed(skipped=one, failures=failures, again_at=monotonic() + pause)
        self.on_skip(one.code)
        if earlier is None or earlier.skipped.code != one.code:
            _log.warning("left_out", code=one.code)

    def keep_only(self, place: str, is_present: Callable[[str], bool]) -> None:
        """Forget what is no longer in a place."""
        gone = [key for key in self._failed if key[0] == place and not is_present(key[1])]
        for key in gone:
            del self._failed[key]
