"""The watcher publishes every drop in a real inbox once, with the right manifest."""

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.storage.locks import UNFINISHED
from ctdeface_watcher.inbox.scan import InboxRules
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.report.model import describe
from tests.integration.small_disk import small_disk
from tests.support.service.watcher import QUIET, RunningWatcher, fill, wait_for

JOB = "6f0b6a3c-0d1f-5c6e-9a53-5f0c1c1d7a10"


@pytest.mark.parametrize("polling", [False, True], ids=["inotify", "polling"])
def test_cases_that_are_moved_in_linked_or_there_before_the_start_are_published_once(
    watcher: RunningWatcher, tmp_path: Path, polling: bool
) -> None:
    """Before the start, by a rename, by hard links."""
    watcher.polling = polling
    fill(watcher.spool.inbox / "before")
    watcher.start()
    fill(tmp_path / "moved").rename(watcher.spool.inbox / "moved")
    shutil.copytree(
        fill(tmp_path / "linked"), watcher.spool.inbox / "linked", copy_function=os.link
    )
    watcher.expect("before", "moved", "linked")


def test_a_case_that_is_copied_slowly_is_published_once_and_whole(watcher: RunningWatcher) -> None:
    """Pauses shorter than the quiet period do not split it."""
    watcher.quiet = 1.2
    watcher.start()
    folder = watcher.spool.inbox / "slow"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.dcm").write_bytes(b"slice")
        assert watcher.jobs == []
        time.sleep(0.3)
    watcher.expect("slow")


def test_the_marker_publishes_a_case_long_before_its_quiet_period_is_over(
    watcher: RunningWatcher,
) -> None:
    """A minute here; without its marker the other case still waits."""
    watcher.quiet, watcher.rules = 60.0, InboxRules(marker="COMPLETE")
    fill(watcher.spool.inbox / "unmarked")
    folder = fill(watcher.spool.inbox / "marked")
    watcher.start()
    wait_for(lambda: watcher.seen.waiting == ("marked", "unmarked"))
    (folder / "COMPLETE").touch()
    wait_for(lambda: [job.case for job in watcher.jobs] == ["marked"])
    assert watcher.jobs[0].manifest == Manifest.scan(watcher.files_of(watcher.jobs[0]))
    assert not folder.exists()


def test_a_case_whose_publication_was_lost_is_published_again(watcher: RunningWatcher) -> None:
    """A restored backup holds reports of cases that were being published, but no staging."""
    case = fill(watcher.spool.inbox / "a")
    manifest, options = Manifest.scan(case), DefaceOptions()
    prepared = replace(
        describe(JOB, "a", manifest, options, CaseResult(released=True)), staged="0123456789abcdef"
    )
    record = watcher.spool.reports / "a" / JOB
    record.mkdir(parents=True)
    (record / "report.json").write_bytes(prepared.to_json())
    mark = watcher.spool.staging / "0123456789abcdef" / UNFINISHED
    mark.parent.mkdir(parents=True)
    mark.touch()
    watcher.start()
    time.sleep(5 * QUIET)
    assert watcher.jobs == []
    mark.unlink()
    watcher.expect("a")


class WrongBroker(MemoryBroker):
    """A queue that was declared otherwise."""

    def publish(self, job: DefaceJob, traceparent: str | None = None) -> NoReturn:
        """Refuse it."""
        del traceparent
        raise ConfigurationError(f"remove the queue first ({job.case})")


def test_a_queue_that_must_be_put_right_ends_the_watcher(watcher: RunningWatcher) -> None:
    """The command exits with 78 instead of failing at every look."""
    watcher.broker = WrongBroker()
    fill(watcher.spool.inbox / "a")
    stop = threading.Event()
    too_late = threading.Timer(10.0, stop.set)
    too_late.start()
    with pytest.raises(ConfigurationError, match="remove the queue first"):
        watcher.watch(stop)
    too_late.cancel()
    assert watcher.seen.paused == "ConfigurationError"


def test_temporary_names_of_rsync_keep_a_case_waiting(watcher: RunningWatcher) -> None:
    """Longer than the quiet period, until the last file has its name."""
    watcher.start()
    folder = fill(watcher.spool.inbox / "rsync")
    hidden = folder / ".3.dcm.Xa81b"
    hidden.write_bytes(b"half")
    time.sleep(4 * QUIET)
    assert watcher.jobs == []
    hidden.rename(folder / "3.dcm")
    watcher.expect("rsync")


def test_what_is_dropped_while_the_watcher_is_down_is_published_and_nothing_twice(
    watcher: RunningWatcher,
) -> None:
    """The ledger outlives the watcher."""
    watcher.start()
    fill(watcher.spool.inbox / "first")
    watcher.expect("first")
    watcher.end()
    fill(watcher.spool.inbox / "second")
    watcher.start()
    watcher.expect("first", "second")


def test_an_inbox_that_is_removed_and_made_anew_is_watched_again(watcher: RunningWatcher) -> None:
    """A remount or a cleaning script does not blind it."""
    watcher.start()
    time.sleep(QUIET)
    shutil.rmtree(watcher.spool.inbox)
    time.sleep(2 * QUIET)
    watcher.spool.inbox.mkdir()
    fill(watcher.spool.inbox / "after")
    watcher.expect("after")


def test_many_folders_at_once_are_published_once_each(watcher: RunningWatcher) -> None:
    """A hundred here; more with `make chaos`."""
    count = int(os.environ.get("CTDEFACE_TEST_DROPS", "100"))
    watcher.start()
    for number in range(count):
        fill(watcher.spool.inbox / f"case-{number:04d}", files=2)
    wait_for(lambda: len(watcher.jobs) >= count, seconds=60 + count / 10)
    time.sleep(2 * QUIET)
    assert len({job.case for job in watcher.jobs}) == len(watcher.jobs) == count


def test_no_more_is_published_than_may_be_unfinished(watcher: RunningWatcher) -> None:
    """The third case waits for its turn."""
    watcher.max_unfinished = 2
    for name in "abc":
        fill(watcher.spool.inbox / name)
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 2)
    time.sleep(3 * QUIET)
    assert len(watcher.jobs) == 2
    assert (watcher.seen.paused, watcher.seen.open_jobs, watcher.seen.waiting) == (
        "unfinished jobs",
        2,
        ("c",),
    )


def test_nothing_is_published_on_a_disk_that_is_nearly_full_and_everything_when_space_returns(
    watcher: RunningWatcher,
) -> None:
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


def test_what_is_no_usable_case_is_written_down_and_keeps_no_other_waiting(
    watcher: RunningWatcher, tmp_path: Path
) -> None:
    """A loose file, a link, a name that is not UTF-8, and an endless copy."""
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
    assert (watcher.seen.waiting, watcher.seen.cases, watcher.seen.open_jobs) == ((), 2, 1)


def test_odd_names_and_folders_without_end_keep_no_other_waiting(watcher: RunningWatcher) -> None:
    """A case nested too deeply, and hidden names like those of gatherings."""
    deep = place = watcher.spool.inbox / "deep"
    place.mkdir()
    for _ in range(1200):
        place /= "d"
        place.mkdir()
    try:
        for name in ("..together", "...together", "....together"):
            (watcher.spool.inbox / name).mkdir()
        fill(watcher.spool.inbox / "good")
        watcher.start()
        watcher.expect("good")
        wait_for(lambda: "deep" in watcher.seen.unusable)
        assert watcher.seen.paused is None
        watcher.end()
    finally:
        subprocess.run(
            ["rm", "-rf", deep], check=True
        )  # what tidies up after tests cannot walk it either


def test_a_case_given_up_is_published_when_it_settles_after_all(watcher: RunningWatcher) -> None:
    """A change makes the watcher look at it again."""
    watcher.longest = 0.6
    endless = fill(watcher.spool.inbox / "endless") / "9.dcm.part"
    endless.write_bytes(b"x")
    watcher.start()
    wait_for(lambda: bool(watcher.seen.never_settled))
    endless.rename(endless.with_suffix(""))
    watcher.expect("endless")
    wait_for(lambda: not watcher.seen.never_settled)


def test_an_inbox_that_cannot_be_read_is_written_down(watcher: RunningWatcher) -> None:
    """Without the inbox the watcher goes on and reports it."""
    shutil.rmtree(watcher.spool.inbox)
    watcher.start()
    wait_for(lambda: watcher.seen.paused == "StorageUnavailable")
    fill(watcher.spool.inbox / "a")
    watcher.expect("a")
    wait_for(lambda: watcher.seen.paused is None)


@pytest.mark.parametrize("loss", ["removed", "damaged"])
def test_a_lost_ledger_costs_nothing(watcher: RunningWatcher, loss: str) -> None:
    """Open jobs are published again as the same jobs; ended ones are not."""
    watcher.originals = Originals.KEEP
    done, waiting = fill(watcher.spool.inbox / "done"), fill(watcher.spool.inbox / "waiting")
    watcher.start()
    watcher.expect("done", "waiting")
    watcher.end()
    for job in watcher.jobs:
        if job.case == done.name:
            folder = watcher.spool.reports / job.case / job.job_id
            folder.mkdir(parents=True)
            told = {
                "job_id": job.job_id,
                "state": "done",
                "manifest": {"digest": job.manifest.digest},
                "generation": 0,
            }
            told |= {
                "created_at": job.submitted_at.isoformat(),
                "result": {"code": "", "reason": ""},
            }
            (folder / "report.json").write_text(json.dumps(told), encoding="utf-8")
    for file in watcher.state.glob("ledger.sqlite3*"):
        file.unlink()
    if loss == "damaged":
        (watcher.state / "ledger.sqlite3").write_bytes(b"no database" * 100)
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 3)
    time.sleep(3 * QUIET)
    assert sorted(job.case for job in watcher.jobs) == ["done", "waiting", "waiting"]
    assert len({job.job_id for job in watcher.jobs}) == 2
    assert watcher.seen.open_jobs == 1
    assert (watcher.state / "ledger.sqlite3.damaged-1").exists() is (loss == "damaged")
    assert waiting.exists()


def test_what_was_kept_long_enough_is_removed_but_not_the_report_of_a_case_in_the_outbox(
    watcher: RunningWatcher,
) -> None:
    """The watcher does so at its start and every hour."""
    watcher.kept_days = 1e-6
    archived, released, taken = (
        watcher.spool.archive / "originals/a" / JOB,
        watcher.spool.reports / "a" / JOB,
        watcher.spool.reports / "b" / JOB,
    )
    for folder in (archived, released, taken, watcher.spool.outbox / "a"):
        folder.mkdir(parents=True)
    time.sleep(0.2)
    watcher.start()
    wait_for(lambda: not archived.exists() and not taken.exists())
    assert released.exists()


def test_a_small_disk_of_the_state_does_not_stop_the_watcher(watcher: RunningWatcher) -> None:
    """New cases wait for space of outbox and work only: ledger and queue need little."""
    watcher.state.mkdir(parents=True, exist_ok=True)
    with small_disk(watcher.state, 64):
        watcher.min_free_gb = 0.5
        fill(watcher.spool.inbox / "a")
        watcher.start()
        wait_for(lambda: watcher.jobs != [])
        watcher.end()
