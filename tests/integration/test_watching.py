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
from ctdeface_shared.settings import SpoolSection
from ctdeface_shared.spool import ServiceSpool
from ctdeface_shared.watcher_state import WATCHER_STATE, WatcherState, read_watcher_state
from ctdeface_watcher.desk import Post
from ctdeface_watcher.events import wakeups
from ctdeface_watcher.ledger import Ledger
from ctdeface_watcher.scan import Rules
from ctdeface_watcher.service import watch
from ctdeface_watcher.stability import Patience

QUIET = 0.3


@dataclass(slots=True)
class Running:
    """A watcher that can be stopped and started again; queue, ledger and spool stay."""

    spool: ServiceSpool
    state: Path
    broker: MemoryBroker
    polling: bool = False
    max_unfinished: int = 1_000_000
    min_free_gb: float = 0.0
    originals: Originals = Originals.ARCHIVE
    longest: float = 60.0
    quiet: float = QUIET
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
                    patience=Patience(quiet=self.quiet, longest=self.longest),
                    options=DefaceOptions(),
                    keeping=SpoolSection(originals=self.originals),
                    state_file=self.state / WATCHER_STATE,
                    rescan_seconds=0.5,
                    max_unfinished=self.max_unfinished,
                    min_free_gb=self.min_free_gb,
                    stop=stop,
                )
            )

    @property
    def jobs(self) -> list[DefaceJob]:
        """Every job that was published."""
        with self.broker.queue.changed:
            return [decode_job(delivery.body) for delivery in self.broker.queue.ready]

    @property
    def seen(self) -> WatcherState:
        """What the watcher wrote down last."""
        return read_watcher_state(self.state / WATCHER_STATE) or WatcherState(looked_at="")

    def expect(self, *cases: str) -> None:
        """Wait until exactly these cases are published, and a little longer to see that no more are."""
        wait_for(lambda: len(self.jobs) >= len(cases))
        time.sleep(2 * self.quiet)
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
    """Write a case under a hidden name and show it by a rename, so that a busy machine makes no pause that looks like its end."""
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    for number in range(files):
        (hidden / f"{number}.dcm").write_bytes(content + bytes([number]))
    return hidden.rename(folder)


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
    watcher.quiet = 2.0
    watcher.start()
    folder = watcher.spool.inbox / "slow"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.dcm").write_bytes(b"slice")
        assert watcher.jobs == []
        time.sleep(0.5)
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
    """A hundred here; more with `make chaos`."""
    count = int(os.environ.get("CTDEFACE_TEST_DROPS", "100"))
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
    assert (watcher.seen.paused, watcher.seen.open_jobs, watcher.seen.waiting) == ("unfinished jobs", 2, ("c",))


def test_nothing_is_published_on_a_disk_that_is_nearly_full_and_everything_when_space_returns(watcher: Running) -> None:
    """No disk has a thousand million GB free."""
    watcher.min_free_gb = 1e9
    fill(watcher.spool.inbox / "a")
    watcher.start()
    wait_for(lambda: watcher.seen.paused == "disk")
    assert watcher.jobs == []
    watcher.end()
    watcher.min_free_gb = 0.0
    watcher.start()
    watcher.expect("a")
    wait_for(lambda: watcher.seen.paused is None)


def test_what_is_no_usable_case_is_written_down_and_keeps_no_other_waiting(watcher: Running, tmp_path: Path) -> None:
    """A loose file, a link to a case, a name that is no text, and a copy that never ends; a name with a line break is a case."""
    watcher.longest = 1.0
    (watcher.spool.inbox / "loose.dcm").write_bytes(b"x")
    (watcher.spool.inbox / "link").symlink_to(fill(tmp_path / "elsewhere"))
    odd = os.fsdecode(b"bytes-\xff")
    fill(watcher.spool.inbox / odd)
    (fill(watcher.spool.inbox / "endless") / "9.dcm.part").write_bytes(b"x")
    fill(watcher.spool.inbox / "line\nbreak")
    watcher.start()
    watcher.expect("line\nbreak")
    wait_for(lambda: bool(watcher.seen.never_settled))
    assert watcher.seen.strays == ("link", "loose.dcm")
    assert watcher.seen.never_settled.keys() == {"endless"}
    assert watcher.seen.never_settled["endless"] >= 1.0
    assert "rename" in watcher.seen.unusable[odd]
    assert (watcher.seen.waiting, watcher.seen.cases, watcher.seen.open_jobs) == ((), 3, 1)


def test_a_case_given_up_is_published_when_it_settles_after_all(watcher: Running) -> None:
    """Whatever changes is looked at again."""
    watcher.longest = 0.6
    endless = fill(watcher.spool.inbox / "endless") / "9.dcm.part"
    endless.write_bytes(b"x")
    watcher.start()
    wait_for(lambda: bool(watcher.seen.never_settled))
    endless.rename(endless.with_suffix(""))
    watcher.expect("endless")
    wait_for(lambda: not watcher.seen.never_settled)


def test_an_inbox_that_cannot_be_read_is_written_down(watcher: Running) -> None:
    """Without the inbox the watcher goes on and says so."""
    shutil.rmtree(watcher.spool.inbox)
    watcher.start()
    wait_for(lambda: watcher.seen.paused == "StorageUnavailable")
    fill(watcher.spool.inbox / "a")
    watcher.expect("a")
    wait_for(lambda: watcher.seen.paused is None)


def test_loose_files_and_zips_make_no_job(watcher: Running) -> None:
    """They are told, not processed."""
    watcher.start()
    (watcher.spool.inbox / "loose.dcm").write_bytes(b"x")
    with zipfile.ZipFile(watcher.spool.inbox / "case.zip", "w") as archive:
        archive.writestr("1.dcm", b"x")
    fill(watcher.spool.inbox / "real")
    watcher.expect("real")
