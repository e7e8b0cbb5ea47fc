"""A zip file becomes a case or is refused, and is processed only once."""

import time
import zipfile
from pathlib import Path

import pytest

from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_worker.report.model import CaseReport, State
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
    """Archived, deleted, or kept and not unpacked again, even without its ledger."""
    watcher.originals = originals
    archive = drop_zip(watcher.spool, "a.zip")
    watcher.start()
    watcher.expect("a")
    assert sorted(
        path.relative_to(watcher.spool.inbox / "a").as_posix()
        for path in (watcher.spool.inbox / "a").rglob("*.dcm")
    ) == [
        "2.dcm",
        "series/1.dcm",
    ]
    assert archive.exists() is (originals is Originals.KEEP)
    assert len(list((watcher.spool.archive / "zips").rglob("a.zip/*/a.zip"))) == (
        originals is Originals.ARCHIVE
    )
    watcher.end()
    for file in watcher.state.glob("ledger*"):
        file.unlink()
    watcher.broker.queue.ready.clear()
    watcher.start()
    watcher.expect("a")
    assert not watcher.seen.waiting


@pytest.mark.parametrize("originals", list(Originals))
def test_a_refused_zip_file_goes_to_the_quarantine_with_a_report(
    watcher: RunningWatcher, originals: Originals
) -> None:
    """Kept in the inbox it is only reported, once."""
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


def test_a_zip_file_refused_twice_is_quarantined_twice(watcher: RunningWatcher) -> None:
    """Nothing is overwritten."""
    watcher.start()
    drop_zip(watcher.spool, "a.zip", bad=True)
    wait_for(lambda: len(list(watcher.spool.quarantine.glob("a/*/originals/a.zip"))) == 1)
    drop_zip(watcher.spool, "a.zip", bad=True)
    wait_for(lambda: len(list(watcher.spool.quarantine.glob("a/*/originals/a.zip"))) == 2)
    assert len({report.job_id for report in refused(watcher.spool, "a")}) == 2


def test_a_zip_file_waits_while_a_case_of_its_name_lies_in_the_inbox(
    watcher: RunningWatcher,
) -> None:
    """It is unpacked when the case has gone."""
    fill(watcher.spool.inbox / "a")
    drop_zip(watcher.spool, "a.zip")
    watcher.start()
    watcher.expect("a")
    assert watcher.seen.waiting == ("a.zip",)
    (watcher.spool.inbox / "a").rename(watcher.spool.archive / "a")
    wait_for(lambda: len(watcher.jobs) == 2)
    assert (watcher.spool.inbox / "a/series/1.dcm").exists()


def test_a_zip_file_waits_beside_a_case_of_the_same_names_and_sizes_but_other_content(
    watcher: RunningWatcher,
) -> None:
    """It may be another patient, and would be lost where originals are deleted."""
    watcher.originals = Originals.DELETE
    case = watcher.spool.inbox / "a"
    (case / "series").mkdir(parents=True)
    (case / "2.dcm").write_bytes(b"TWO")
    (case / "series/1.dcm").write_bytes(b"one")
    archive = drop_zip(watcher.spool, "a.zip")
    watcher.start()
    watcher.expect("a")
    assert archive.exists()
    assert watcher.seen.waiting == ("a.zip",)


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
    """Its content, not its own size, counts."""
    watcher.limits = ZipLimits(files=9, bytes=10**18, ratio=10.0**18)
    hidden = watcher.spool.inbox / ".a.zip"
    with zipfile.ZipFile(hidden, "w") as packed:
        packed.writestr("1.dcm", b"one")
        packed.infolist()[0].file_size = 10**16  # the directory that is written at the end says so
    hidden.rename(watcher.spool.inbox / "a.zip")
    watcher.start()
    wait_for(lambda: watcher.seen.waiting == ("a.zip",))
    time.sleep(3 * QUIET)
    assert (watcher.spool.inbox / "a.zip").exists()
    assert not refused(watcher.spool, "a")


def test_a_case_of_a_zip_file_is_never_seen_half(watcher: RunningWatcher) -> None:
    """Every listing of the inbox shows both files or none."""
    watcher.start()
    drop_zip(watcher.spool, "a.zip")
    case = watcher.spool.inbox / "a"
    wait_for(case.exists)
    assert len(list(case.rglob("*.dcm"))) == 2
