"""The watcher's memory between two looks at the inbox."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Self

from ctdeface_shared import logs
from ctdeface_watcher.inbox.stability import SeenCase, Snapshot, add_scan
from ctdeface_watcher.jobs.taken_cases import TakenState
from ctdeface_watcher.skips import Skips

_MOST_NOTES = 20
_MOST_DOUBLINGS = 30
_LONGEST_PAUSE_SECONDS = 3600.0
"""Longest time between two copies of an entry that keeps changing."""

STAYS = (
    "is processed from a copy, because the service may not move it: it stays in the inbox; let its "
    "group write into all its folders (chmod -R g+w), or set spool.originals to keep"
)
"""The note about an entry that the service does not move although it should."""

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """How often an entry was copied.

    Attributes:
        count: number of copies.
        next_at: when it may be copied again, monotonic seconds.
    """

    count: int
    next_at: float


@dataclass(slots=True)
class InboxState:
    """State between two looks; the next looks can restore it.

    Cases and zip files are known by their names.

    Attributes:
        seen: entries that are not complete, or wait for their turn.
        finished: snapshots of entries that need nothing until they change.
        never_settled: seconds that were waited for entries that did not become complete.
        unusable: why an entry cannot be processed, a sentence for each.
        kept: names of entries that stay in the inbox and were processed as they are.
        notes: sentences about drops that did not become the case of their name, newest last.
        copies: when entries that stay in the inbox were copied.
        taken: what is remembered about taken cases.
        strays: names of files and links that are not part of a case.
        has_more: whether complete cases were left to the next look.
        is_first: whether the watcher has not looked yet.
        is_rebuilt: whether an empty ledger was filled from the reports.
        paused: why nothing is published now.
        failed: code of the error that ended the last look.
        lost_check_failed: code of the error that ended the last check for lost jobs.
        next_lost_check: monotonic seconds.
        next_removal: when expired files are removed next, monotonic seconds.
    """

    seen: dict[str, SeenCase] = field(default_factory=dict)
    finished: dict[str, Snapshot] = field(default_factory=dict)
    never_settled: dict[str, float] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)
    copies: dict[str, Copies] = field(default_factory=dict)
    taken: TakenState = field(default_factory=TakenState)
    strays: frozenset[str] = frozenset()
    has_more: bool = False
    is_first: bool = True
    is_rebuilt: bool = False
    paused: str | None = None
    failed: str | None = None
    lost_check_failed: str | None = None
    next_lost_check: float = 0.0
    next_removal: float = 0.0

    @classmethod
    def counting(cls, on_skip: Callable[[str], None]) -> Self:
        """Return a new state that reports the code of each failure of one case."""
        return cls(taken=TakenState(skips=Skips(on_skip)))

    @property
    def skips(self) -> Skips:
        """Return what the looks leave out because of an error."""
        return self.taken.skips

    def keep_only(self, present: Collection[str]) -> None:
        """Drop the entries that are no longer in the inbox."""
        for known in (self.seen, self.finished, self.never_settled, self.copies):
            for gone in known.keys() - present:
                del known[gone]
        for gone in self.unusable.keys() - present - self.taken.failing:
            del self.unusable[gone]
        for gone in self.notes.keys() - present:
            if self.notes[gone] == STAYS:
                del self.notes[gone]
        self.kept &= self.finished.keys()

    def note(self, name: str, text: str) -> None:
        """Remember a sentence about a drop; older ones are forgotten."""
        self.notes.pop(name, None)
        self.notes[name] = text
        for oldest in list(self.notes)[:-_MOST_NOTES]:
            del self.notes[oldest]

    def look_again(self, name: str, now: float) -> None:
        """Process an entry of the inbox again, although it has not changed."""
        self.kept.discard(name)
        if name in self.finished:
            self.seen.setdefault(name, add_scan(None, self.finished.pop(name), now))

    def may_copy(self, name: str, now: float) -> bool:
        """Return True unless an entry that stays in the inbox was copied too lately.

        The time between two copies doubles: a file that is touched again and again must not make
        the service copy a large case all the time.

        Args:
            name: of the entry.
            now: monotonic seconds.
        """
        return name not in self.copies or now >= self.copies[name].next_at

    def note_copy(self, name: str, now: float, quiet: float) -> None:
        """Note that an entry is being copied.

        Args:
            name: of the entry.
            now: monotonic seconds.
            quiet: the quiet period in seconds.
        """
        count = self.copies[name].count + 1 if name in self.copies else 1
        pause = min(quiet * 2.0 ** min(count, _MOST_DOUBLINGS), _LONGEST_PAUSE_SECONDS)
        self.copies[name] = Copies(count=count, next_at=now + pause)

    def finish(self, name: str) -> None:
        """Mark an entry as finished until it changes."""
        self.finished[name] = self.seen.pop(name).snapshot

    def mark_unusable(self, name: str, reason: str) -> None:
        """Record why an entry cannot be processed; log new reasons."""
        if self.unusable.get(name) != reason:
            self.unusable[name] = reason
            _log.warning("case_unusable")
