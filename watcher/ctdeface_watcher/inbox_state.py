"""The watcher's memory between two looks at the inbox."""

from collections.abc import Collection
from dataclasses import dataclass, field

from ctdeface_shared import logs
from ctdeface_watcher.inbox.stability import SeenCase, Snapshot
from ctdeface_watcher.jobs.taken_cases import TakenState

_MOST_NOTES = 20

_log = logs.logger(__name__)


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
        taken: what is remembered about taken cases.
        strays: names of files and links that are not part of a case.
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
    taken: TakenState = field(default_factory=TakenState)
    strays: frozenset[str] = frozenset()
    is_rebuilt: bool = False
    paused: str | None = None
    failed: str | None = None
    lost_check_failed: str | None = None
    next_lost_check: float = 0.0
    next_removal: float = 0.0

    def keep_only(self, present: Collection[str]) -> None:
        """Drop the entries that are no longer in the inbox."""
        for known in (self.seen, self.finished, self.never_settled, self.unusable):
            for gone in known.keys() - present:
                del known[gone]
        self.kept &= self.finished.keys()

    def note(self, name: str, text: str) -> None:
        """Remember a sentence about a drop; older ones are forgotten."""
        self.notes.pop(name, None)
        self.notes[name] = text
        for oldest in list(self.notes)[:-_MOST_NOTES]:
            del self.notes[oldest]

    def look_again(self, name: str) -> None:
        """Process an entry of the inbox again, although it has not changed."""
        self.finished.pop(name, None)
        self.kept.discard(name)

    def finish(self, name: str) -> None:
        """Mark an entry as finished until it changes."""
        self.finished[name] = self.seen.pop(name).snapshot

    def mark_unusable(self, name: str, reason: str) -> None:
        """Record why an entry cannot be processed; log new reasons."""
        if self.unusable.get(name) != reason:
            self.unusable[name] = reason
            _log.warning("case_unusable")
