"""A zip file becomes a case or is refused, and is processed only once."""

import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.errors import UnsafeDrop
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.inbox.take import take
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.report.model import CaseReport, State, describe
from tests.support.service.watcher import QUIET, RunningWatcher, fill, wait_for


def drop_zip(spool: ServiceSpool, name: str, *, bad: bool = False) -> Path:
    """Drop a zip file of one case."""
    hidden = spool.inbox / f".{name}"
    with zipfile.ZipFile(hidden, "w") as packed:
        packed.writestr("series/1.dcm", b"one")
        packed.writestr("../2.dcm" if bad else "2.dcm", b"two")
    return hidden.rename(spool.inbox / name)


def refused(spool: ServiceSpool, case: str) -> list[CaseReport]:
    """Return the reports of a case in the quarantine, read as workers read them."""
    return [
        CaseReport.from_json(path.read_bytes())
        for path in sorted((spool.quarantine / case).glob("*/report.json"))
    ]


@pytest.mark.parametrize("originals", list(Originals))
def test_a_zip_file_becomes_one_case_and_is_put_away(
    watcher: RunningWatcher, originals: Originals
) -> None:
    """Archived, deleted or kept; without its ledger the watcher publishes the same job again."""
    watcher.originals = originals
    archive = drop_zip(watcher.spool, "a.zip")
    watcher.start()
    watcher.expect("a")
    (job,) = watcher.jobs
    files = watcher.files_of(job)
    assert sorted(path.relative_to(files).as_posix() for path in files.rglob("*.dcm")) == [
        "2.dcm",
        "series/1.dcm",
    ]
    assert archive.exists() is (originals is Originals.KEEP)
    assert job.left_in_inbox is (originals is Originals.KEEP)
    assert len(list((watcher.spool.archive / "zips").rglob("a.zip/*/a.zip"))) == (
        originals is Originals.ARCHIVE
    )
    watcher.end()
    for file in watcher.state.glob("ledger*"):
        file.unlink()
    watcher.broker.queue.ready.clear()
    watcher.start()
    watcher.expect("a")
    assert watcher.jobs == [job]


@pytest.mark.parametrize("originals", list(Originals))
def test_a_refused_zip_file_goes_to_the_quarantine_with_a_report(
    watcher: RunningWatcher, originals: Originals
) -> None:
    """Kept in the inbox it is only reported, once, also by the next watcher."""
    watcher.originals = originals
    archive = drop_zip(watcher.spool, "a.zip", bad=True)
    watcher.start()
    wait_for(
        lambda: (
            archive.exists() is (originals is Originals.KEEP) and bool(refused(watcher.spool, "a"))
        )
    )
    fill(watcher.spool.inbox / "other")
    watcher.expect("other")
    (report,) = refused(watcher.spool, "a")
    assert (report.state, report.result.code) == (State.REFUSED, "UnsafeArchive")
    assert "leads out of its folder" in report.result.reason
    assert (watcher.spool.reports / "a" / report.job_id / "report.json").exists()
    assert len(list(watcher.spool.quarantine.glob("a/*/originals/a.zip"))) == (
        originals is not Originals.KEEP
    )
    assert not watcher.seen.waiting
    watcher.end()
    watcher.start()
    time.sleep(5 * QUIET)
    assert len(refused(watcher.spool, "a")) == 1


def test_a_zip_file_refused_twice_is_quarantined_twice(watcher: RunningWatcher) -> None:
    """Nothing is overwritten."""
    watcher.start()
    drop_zip(watcher.spool, "a.zip", bad=True)
    wait_for(lambda: len(list(watcher.spool.quarantine.glob("a/*/originals/a.zip"))) == 1)
    drop_zip(watcher.spool, "a.zip", bad=True)
    wait_for(lambda: len(list(watcher.spool.quarantine.glob("a/*/originals/a.zip"))) == 2)
    assert len({report.job_id for report in refused(watcher.spool, "a")}) == 2


@pytest.mark.parametrize("originals", [Originals.ARCHIVE, Originals.DELETE])
def test_a_zip_file_waits_for_the_end_of_the_case_of_its_name(
    watcher: RunningWatcher, originals: Originals
) -> None:
    """It may be another patient, so it is compared with that case then."""
    watcher.originals = originals
    fill(watcher.spool.inbox / "a")
    drop_zip(watcher.spool, "a.zip")
    watcher.start()
    wait_for(lambda: not any(watcher.spool.inbox.iterdir()))
    watcher.expect("a")
    assert watcher.seen.waiting == ("a",)
    (first,) = watcher.jobs
    watcher.broker.queue.ready.clear()
    end(watcher, first)
    wait_for(lambda: [job.case for job in watcher.jobs] == ["a-2"])
    (second,) = watcher.jobs
    assert (watcher.files_of(second) / "series/1.dcm").read_bytes() == b"one"


def end(watcher: RunningWatcher, job: DefaceJob) -> None:
    """Release a case as a worker does, and delete its originals."""
    report = describe(job.job_id, job.case, job.manifest, job.options, CaseResult(released=True))
    record = watcher.spool.reports / job.case / job.job_id
    record.mkdir(parents=True)
    (record / "report.json").write_bytes(replace(report, state=State.DONE).to_json())
    taken_case(watcher.spool, job.taken).remove()


def test_a_zip_file_that_is_still_being_copied_waits(watcher: RunningWatcher) -> None:
    """A part of it would be damaged."""
    whole = drop_zip(watcher.spool, "a.zip").rename(watcher.spool.archive / "a.zip").read_bytes()
    watcher.quiet = 1.2
    watcher.start()
    for part in range(1, 5):
        (watcher.spool.inbox / "a.zip").write_bytes(whole[: len(whole) * part // 4])
        time.sleep(QUIET)
    watcher.expect("a")
    assert not refused(watcher.spool, "a")


def test_a_zip_file_for_which_the_disk_has_no_room_waits(watcher: RunningWatcher) -> None:
    """Its content, not its own size, counts; it is out of reach of its owner meanwhile."""
    watcher.limits = ZipLimits(files=9, bytes=10**18, ratio=10.0**18)
    hidden = watcher.spool.inbox / ".a.zip"
    with zipfile.ZipFile(hidden, "w") as packed:
        packed.writestr("1.dcm", b"one")
        packed.infolist()[0].file_size = 10**16  # the directory that is written at the end says so
    hidden.rename(watcher.spool.inbox / "a.zip")
    watcher.start()
    wait_for(lambda: "free disk space" in watcher.seen.unusable.get("a.zip", ""))
    fill(watcher.spool.inbox / "other")
    watcher.expect("other")
    assert watcher.seen.waiting == ("a",)
    assert not list(watcher.spool.inbox.iterdir())
    assert not refused(watcher.spool, "a")
    assert "free disk space" in watcher.seen.unusable["a.zip"]


def test_a_file_that_takes_the_place_of_a_case_is_not_taken_for_a_zip_file(
    watcher: RunningWatcher,
) -> None:
    """Only files whose names end with .zip are."""
    case = fill(watcher.spool.inbox / "abc").rename(watcher.spool.work / "away")
    (watcher.spool.inbox / "abc").write_bytes(b"not a folder")
    with pytest.raises(UnsafeDrop, match="replaced by a file"):
        take(watcher.spool, "abc", 0.0, case.stat().st_ino, moves=True)
    assert not list(watcher.spool.taken.iterdir())
