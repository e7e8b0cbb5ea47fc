"""Originals move after the outcome: atomically, repeatably, and only those of the job."""

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult
from ctdeface_worker.publishing.journal import record
from ctdeface_worker.publishing.originals import archive
from ctdeface_worker.publishing.quarantine import refuse, show
from ctdeface_worker.report.model import CaseReport, State, describe

PutAway = Callable[[ServiceSpool, CaseReport, Originals], bool]


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """A spool with one dropped case `a` of two files."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    write(spool.inbox / "a" / "1.dcm", "one")
    write(spool.inbox / "a" / "sub" / "2.dcm", "two")
    return spool


def write(path: Path, text: str) -> None:
    """Write one small file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def report_of(spool: ServiceSpool, *, released: bool) -> CaseReport:
    """Describe the case as it lies in the inbox now."""
    folder = spool.inbox / "a"
    files = tuple(
        FileResult(
            file=path.relative_to(folder).as_posix(),
            size=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            fate=Fate.RELEASED if released else Fate.FAILED,
        )
        for path in sorted(folder.rglob("*.dcm"))
    )
    result = CaseResult(released=released, code="" if released else "FaceNotFound", files=files)
    report = describe("job-1", "a", Manifest.scan(folder), DefaceOptions(), result)
    record(spool, report)
    return report


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return (
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if folder.exists()
        else []
    )


def test_originals_of_a_released_case_are_archived_under_their_job(spool: ServiceSpool) -> None:
    """The inbox is empty afterwards, and a repetition changes nothing."""
    report = report_of(spool, released=True)
    for _ in range(2):
        archive(spool, report, Originals.ARCHIVE)
        assert names(spool.archive / "originals/a/job-1") == ["1.dcm", "sub/2.dcm"]
        assert names(spool.inbox) == []


def test_originals_are_deleted_or_kept_when_asked(spool: ServiceSpool) -> None:
    """`keep` leaves the inbox alone, `delete` leaves nothing."""
    report = report_of(spool, released=True)
    archive(spool, report, Originals.KEEP)
    assert names(spool.inbox / "a") == ["1.dcm", "sub/2.dcm"]
    archive(spool, report, Originals.DELETE)
    assert names(spool.inbox) == names(spool.archive) == []


def test_a_refused_case_lies_in_quarantine_with_its_report_and_originals(
    spool: ServiceSpool,
) -> None:
    """A person finds the reason beside the files."""
    show(spool, report_of(spool, released=False), Originals.DELETE)
    assert names(spool.quarantine / "a/job-1") == [
        "originals/1.dcm",
        "originals/sub/2.dcm",
        "report.html",
        "report.json",
    ]
    assert names(spool.inbox) == []


def test_a_refused_case_stays_in_a_kept_inbox(spool: ServiceSpool) -> None:
    """Quarantine shows the report only."""
    show(spool, report_of(spool, released=False), Originals.KEEP)
    assert names(spool.quarantine / "a/job-1") == ["report.html", "report.json"]
    assert names(spool.inbox / "a") == ["1.dcm", "sub/2.dcm"]


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.EROFS]
)
@pytest.mark.parametrize("rule", [Originals.ARCHIVE, Originals.DELETE])
def test_originals_that_may_not_be_moved_stay_in_the_inbox(
    spool: ServiceSpool, number: int, rule: Originals
) -> None:
    """A foreign folder or a mount point ends the step without loss; the report is shown."""

    def fail(_source: Path, _place: Path) -> None:
        raise OSError(number, os.strerror(number))

    assert archive(spool, report_of(spool, released=True), rule, fail)
    assert names(spool.inbox / "a") == ["1.dcm", "sub/2.dcm"]
    assert show(spool, report_of(spool, released=False), rule, fail)
    assert names(spool.inbox / "a") == ["1.dcm", "sub/2.dcm"]
    assert names(spool.quarantine / "a/job-1") == ["report.html", "report.json"]


@pytest.mark.parametrize("released", [True, False])
def test_the_report_says_that_originals_are_left(spool: ServiceSpool, released: bool) -> None:
    """Both as a field and on the page, for a released and for a refused case."""
    report, inbox = report_of(spool, released=released), spool.inbox / "a"

    def rename(source: Path, place: Path) -> None:
        assert source == inbox
        raise PermissionError(errno.EACCES, str(place))

    if released:
        left = archive(spool, report, Originals.ARCHIVE, rename)
        record(spool, replace(report, state=State.DONE, originals_left=left))
        folder = spool.reports / "a/job-1"
    else:
        assert refuse(
            spool, report, Originals.ARCHIVE, stale_seconds=60, rename=rename
        ).originals_left
        folder = spool.quarantine / "a/job-1"
    assert CaseReport.from_json((folder / "report.json").read_bytes()).originals_left
    assert "the service may not move them" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("put_away", [archive, show])
def test_late_files_stay_in_the_inbox(spool: ServiceSpool, put_away: PutAway) -> None:
    """What came after the job was described is not put away with it."""
    report = report_of(spool, released=put_away is archive)
    write(spool.inbox / "a" / "sub" / "3.dcm", "late")
    put_away(spool, report, Originals.ARCHIVE)
    assert names(spool.inbox) == ["a/sub/3.dcm"]


@pytest.mark.parametrize("put_away", [archive, show])
def test_another_patient_under_the_same_names_stays_in_the_inbox(
    spool: ServiceSpool, put_away: PutAway
) -> None:
    """Files are told apart by content, not by name."""
    report = report_of(spool, released=put_away is archive)
    write(spool.inbox / "a" / "1.dcm", "ONE")
    write(spool.inbox / "a" / "sub" / "2.dcm", "TWO")
    put_away(spool, report, Originals.ARCHIVE)
    assert names(spool.inbox) == ["a/1.dcm", "a/sub/2.dcm"]


def test_a_crash_between_moving_and_returning_is_made_good(spool: ServiceSpool) -> None:
    """A late file that was moved with the folder comes back when the step is repeated."""
    report = report_of(spool, released=True)
    write(spool.inbox / "a" / "3.dcm", "late")
    (spool.archive / "originals/a").mkdir(parents=True)
    (spool.inbox / "a").rename(spool.archive / "originals/a/job-1")
    archive(spool, report, Originals.ARCHIVE)
    assert names(spool.inbox) == ["a/3.dcm"]
    assert names(spool.archive / "originals/a/job-1") == ["1.dcm", "sub/2.dcm"]
