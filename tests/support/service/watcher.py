"""A watcher over a real spool, in a thread of the test."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob, decode_job
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.settings.sections import LimitsSection, SpoolSection
from ctdeface_shared.status.watcher_state import WATCHER_STATE, WatcherState, read_watcher_state
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.inbox.events import wakeups
from ctdeface_watcher.inbox.examine import ExamineRules
from ctdeface_watcher.inbox.scan import InboxRules
from ctdeface_watcher.inbox.stability import SettleTimes
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_watcher.jobs.publish import Publisher
from ctdeface_watcher.jobs.taken_cases import Examiner
from ctdeface_watcher.service import Watcher, WatchRules, watch
from ctdeface_watcher.watch_events import WatchHook

QUIET = 0.3
_RULES = InboxRules(ignore=("Thumbs.db",))
TREE_LIMITS = LimitsSection().tree()
_LIMITS = ZipLimits(files=100, bytes=1_000_000, ratio=100.0)


@dataclass(slots=True)
class RunningWatcher:
    """A watcher that can be stopped and started again; queue, ledger and spool stay."""

    spool: ServiceSpool
    state: Path
    broker: MemoryBroker
    polling: bool = False
    max_unfinished: int = 1_000_000
    min_free_gb: float = 0.0
    rules: InboxRules = _RULES
    originals: Originals = Originals.ARCHIVE
    lost_seconds: float = 600.0
    kept_days: float | None = None
    longest: float = 60.0
    quiet: float = QUIET
    limits: ZipLimits = _LIMITS
    hooks: tuple[WatchHook, ...] = ()
    thread: threading.Thread | None = None
    stop: threading.Event | None = None

    def start(self) -> None:
        """Watch in a thread, which owns the ledger."""
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, args=(self.stop,))
        self.thread.start()

    def end(self) -> None:
        """Stop watching."""
        if self.stop is not None and self.thread is not None:
            self.stop.set()
            self.thread.join()

    def watch(self, stop: threading.Event) -> None:
        """Watch in this thread."""
        options = DefaceOptions()
        rules = WatchRules(
            inbox=self.rules,
            settle=SettleTimes(quiet=self.quiet, longest=self.longest),
            moves=self.originals is not Originals.KEEP,
            rescan_seconds=0.5,
            max_unfinished=self.max_unfinished,
            min_free_gb=self.min_free_gb,
            retention=SpoolSection(
                originals=self.originals,
                archive_days=self.kept_days,
                reports_days=self.kept_days,
            ),
            longest_job_seconds=3900.0,
            lost_seconds=self.lost_seconds,
        )
        with Ledger(self.state) as ledger:
            publisher = Publisher(
                spool=self.spool,
                broker=self.broker,
                ledger=ledger,
                rules=self.rules,
                limits=TREE_LIMITS,
                options=options,
                originals=self.originals,
            )
            watcher = Watcher(
                rules=rules,
                spool=self.spool,
                broker=self.broker,
                ledger=ledger,
                publisher=publisher,
                examiner=Examiner(
                    ExamineRules(
                        inbox=self.spool.inbox,
                        limits=TREE_LIMITS,
                        zips=self.limits,
                        min_free_gb=self.min_free_gb,
                    )
                ),
                wakeups=wakeups(self.spool.inbox, polling=self.polling),
                state_file=self.state / WATCHER_STATE,
                hooks=self.hooks,
            )
            watch(watcher, stop)

    @property
    def jobs(self) -> list[DefaceJob]:
        """Every job that was published."""
        with self.broker.queue.changed:
            return [decode_job(delivery.body) for delivery in self.broker.queue.ready]

    @property
    def seen(self) -> WatcherState:
        """The state file of the last look."""
        return read_watcher_state(self.state / WATCHER_STATE) or WatcherState(looked_at="")

    def expect(self, *cases: str) -> None:
        """Wait until exactly these cases are published and no more."""
        wait_for(lambda: len(self.jobs) >= len(cases))
        time.sleep(2 * self.quiet)
        assert sorted(job.case for job in self.jobs) == sorted(cases)
        assert all(job.manifest == Manifest.scan(self.files_of(job)) for job in self.jobs)

    def files_of(self, job: DefaceJob) -> Path:
        """Return the folder of the files of a job."""
        return taken_case(self.spool, job.taken).files


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert holds


def fill(folder: Path, files: int = 3, content: bytes = b"slice") -> Path:
    """Write a case under a hidden name and show it by a rename.

    On a busy machine a pause between two files could look like the end of the copy.
    """
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    for number in range(files):
        (hidden / f"{number}.dcm").write_bytes(content + bytes([number]))
    return hidden.rename(folder)
