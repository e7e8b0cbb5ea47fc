"""What the watcher works with, and what it remembers between two looks."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.settings.sections import SpoolSection
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_shared.tracing.spans import NO_TRACER, Tracer
from ctdeface_watcher.inbox.events import Wakeups
from ctdeface_watcher.inbox.scan import InboxRules
from ctdeface_watcher.inbox.stability import SeenCase, SettleTimes, Snapshot
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_watcher.jobs.ledger import Entry, Ledger
from ctdeface_watcher.observer import NO_OBSERVER, Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherContext:
    """Everything the watcher works with.

    Attributes:
        spool: where the inbox and the reports are.
        broker: where jobs are published.
        ledger: what was published.
        wakeups: what makes it look sooner.
        rules: how the inbox is read.
        patience: when a case is complete.
        limits: how much a zip file may hold.
        options: what is asked for each case.
        keeping: what becomes of originals, and how long what is put away is kept.
        state_file: where each look is written down.
        rescan_seconds: between two looks at the inbox when nothing wakes it up.
        max_unfinished: no more jobs are published while so many have not ended.
        min_free_gb: nor while less is free.
        stop: set when the watcher shall end.
        lost_seconds: after which a job that nobody reported about may count as lost by the queue.
        longest_job_seconds: for which a job that began counts as being worked on.
        listener: hears what happens.
        tracer: is told how long cases take.
        is_active: tells whether this is still the one watcher of the inbox.
    """

    spool: ServiceSpool
    broker: Broker
    ledger: Ledger
    wakeups: Wakeups
    rules: InboxRules
    patience: SettleTimes
    limits: ZipLimits
    options: DefaceOptions
    keeping: SpoolSection
    state_file: Path
    rescan_seconds: float
    max_unfinished: int
    min_free_gb: float
    stop: threading.Event
    longest_job_seconds: float
    lost_seconds: float = 600.0
    observer: Observer = NO_OBSERVER
    tracer: Tracer = NO_TRACER
    is_active: Callable[[], bool] = lambda: True

    @property
    def originals(self) -> Originals:
        """What becomes of dropped files."""
        return self.keeping.originals


@dataclass(slots=True)
class WatchState:
    """What is remembered between two looks; lost with the process, and no harm done.

    Attributes:
        watched: what is not complete, cases and zip files by their names.
        judged: what was dealt with, with the snapshot that it had then.
        given_up: seconds that something was waited for which never settled.
        unusable: why a case cannot be published or read, a sentence for each.
        unnoted: jobs that were published while the ledger could not be written.
        is_rebuilt: whether an empty ledger was filled from the reports.
        told: strays that were reported.
        paused: why nothing is published now.
        failed: code of what the last look failed with.
        unknown: code of why it is not known whether the queue lost jobs.
        asked_at: when the queue was last asked whether it lost something, monotonic seconds.
        cleared_at: when what had been kept long enough was removed, monotonic seconds.
    """

    watched: dict[str, SeenCase] = field(default_factory=dict)
    judged: dict[str, Snapshot] = field(default_factory=dict)
    given_up: dict[str, float] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    unnoted: list[Entry] = field(default_factory=list)
    is_rebuilt: bool = False
    told: frozenset[Path] = frozenset()
    paused: str | None = None
    failed: str | None = None
    unknown: str | None = None
    asked_at: float | None = None
    cleared_at: float | None = None

    def forget_all_but(self, present: Collection[str]) -> None:
        """Forget whatever is no longer in the inbox."""
        for known in (self.watched, self.judged, self.given_up, self.unusable):
            for gone in known.keys() - present:
                del known[gone]
