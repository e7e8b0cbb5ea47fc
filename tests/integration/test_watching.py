"""The watcher over a real inbox with the embedded queue: every drop is published exactly once, with the right manifest."""

import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.manifest import Manifest
from ctdeface_shared.messages import DefaceJob, decode_job
from ctdeface_shared.options import DefaceOptions, Originals
from ctdeface_shared.spool import ServiceSpool
from ctdeface_watcher.events import wakeups
from ctdeface_watcher.ledger import Ledger
from ctdeface_watcher.scan import Rules
from ctdeface_watcher.service import Post, watch
from ctdeface_watcher.stability import Patience

QUIET = 0.3


@dataclass(slots=True)
class Running:
    """A watcher that can be stopped and started again; queue, ledger and spool stay."""

    spool: ServiceSpool
    state: Path
    broker: MemoryBroker
    polling: bool = False
    max_unfinished: int = 1000
    thread: threading.Thread | None = None
    stop: threading.Event | None = None

    def start(self) -> None:
        """Watch in a thread, which owns the ledger."""
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, args=(self.stop,))
        self.thread.start()

    def end(self) -> None:
        """Stop watching."""
        if self.stop is not None and self.thread is not None:
            self.stop.set()
            self.thread.join()

    def _watch(self, stop: threading.Event) -> None:
        with Ledger(self.state) as ledger:
            watch(
                Post(
                    spool=self.spool,
                    broker=self.broker,
                    ledger=ledger,
                    wakeups=wakeups(self.spool.inbox, polling=self.polling),
                    rules=Rules(ignore=("Thumbs.db",)),
                    patience=Patience(quiet=QUIET, longest=60.0),
                    options=DefaceOptions(),
                    rescan_seconds=0.5,
                    max_unfinished=self.max_unfinished,
                    min_free_gb=0.0,
                    stop=stop,
                )
            )

    @property
    def jobs(self) -> list[DefaceJob]:
        """Every job that was published."""
        with self.broker.queue.changed:
            return [decode_job(delivery.body) for delivery in self.broker.queue.ready]

    def expect(self, *cases: str) -> None:
        """Wait until exactly these cases are published, and a little longer to see that no more are."""
        wait_for(lambda: len(self.jobs) >= len(cases))
        time.sleep(2 * QUIET)
        assert sorted(job.case for job in self.jobs) == sorted(cases)
        assert all(job.manifest == Manifest.scan(self.spool.inbox / job.case) for job in self.jobs)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Running]:
    """A watcher over an empty inbox, not started yet."""
    spool = ServiceSpool.under(tmp_path / "spool")
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(Originals.ARCHIVE)
    state = tmp_path / "state"
    state.mkdir()
    running = Running(spool=spool, state=state, broker=MemoryBroker())
    yield running
    running.end()


def fill(folder: Path, files: int = 3, content: bytes = b"slice") -> Path:
    """Write a case."""
    folder.mkdir(parents=True)
    for number in range(files):
        (folder / f"{number}.dcm").write_bytes(content + bytes([number]))
    return folder


@pytest.mark.parametrize("polling", [False, True], ids=["inotify", "polling"])
def test_cases_that_are_moved_in_linked_or_there_before_the_start_are_published_once(
    watcher: Running, tmp_path: Path, polling: bool
) -> None:
    """Before the start, by a rename, by hard links."""
    watcher.polling = polling
    fill(watcher.spool.inbox / "before")
    watcher.start()
    fill(tmp_path / "moved").rename(watcher.spool.inbox / "moved")
    shutil.copytree(fill(tmp_path / "linked"), watcher.spool.inbox / "linked", copy_function=os.link)
    watcher.expect("before", "moved", "linked")


def test_a_case_that_is_copied_slowly_is_published_once_and_whole(watcher: Running) -> None:
    """Pauses shorter than the quiet period do not split it."""
    watcher.start()
    folder = watcher.spool.inbox / "slow"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.dcm").write_bytes(b"slice")
        time.sleep(QUIET / 2)
    watcher.expect("slow")


def test_temporary_names_of_rsync_keep_a_case_waiting(watcher: Running) -> None:
    """Longer than the quiet period, until the last file has its name."""
    watcher.start()
    folder = fill(watcher.spool.inbox / "rsync")
    hidden = folder / ".3.dcm.Xa81b"
    hidden.write_bytes(b"half")
    time.sleep(4 * QUIET)
    assert watcher.jobs == []
    hidden.rename(folder / "3.dcm")
    watcher.expect("rsync")


def test_what_is_dropped_while_the_watcher_is_down_is_published_and_nothing_twice(watcher: Running) -> None:
    """The ledger outlives the watcher."""
    watcher.start()
    fill(watcher.spool.inbox / "first")
    watcher.expect("first")
    watcher.end()
    fill(watcher.spool.inbox / "second")
    watcher.start()
    watcher.expect("first", "second")


def test_an_inbox_that_is_removed_and_made_anew_is_watched_again(watcher: Running) -> None:
    """A remount or a cleaning script does not blind it."""
    watcher.start()
    time.sleep(QUIET)
    shutil.rmtree(watcher.spool.inbox)
    time.sleep(2 * QUIET)
    watcher.spool.inbox.mkdir()
    fill(watcher.spool.inbox / "after")
    watcher.expect("after")


def test_another_patient_under_the_same_names_is_a_new_job(watcher: Running) -> None:
    """The content decides, through size and time."""
    watcher.start()
    fill(watcher.spool.inbox / "head")
    watcher.expect("head")
    shutil.rmtree(watcher.spool.inbox / "head")
    fill(watcher.spool.inbox / "head", content=b"other slice")
    wait_for(lambda: len(watcher.jobs) == 2)
    assert len({job.job_id for job in watcher.jobs}) == 2


def test_many_folders_at_once_are_published_once_each(watcher: Running) -> None:
    """Two hundred here; more with `make chaos`."""
    count = int(os.environ.get("CTDEFACE_TEST_DROPS", "200"))
    watcher.start()
    for number in range(count):
        fill(watcher.spool.inbox / f"case-{number:04d}", files=2)
    wait_for(lambda: len(watcher.jobs) >= count, seconds=60 + count / 10)
    time.sleep(2 * QUIET)
    assert len({job.case for job in watcher.jobs}) == len(watcher.jobs) == count


def test_no_more_is_published_than_may_be_unfinished(watcher: Running) -> None:
    """The third case waits for its turn."""
    watcher.max_unfinished = 2
    for name in "abc":
        fill(watcher.spool.inbox / name)
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 2)
    time.sleep(3 * QUIET)
    assert len(watcher.jobs) == 2


def test_loose_files_and_zips_make_no_job(watcher: Running) -> None:
    """They are told, not processed."""
    watcher.start()
    (watcher.spool.inbox / "loose.dcm").write_bytes(b"x")
    with zipfile.ZipFile(watcher.spool.inbox / "case.zip", "w") as archive:
        archive.writestr("1.dcm", b"x")
    fill(watcher.spool.inbox / "real")
    watcher.expect("real")
