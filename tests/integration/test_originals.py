"""Originals leave the taken folder after the outcome, by one rename that can be repeated."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.jobs.taken import TakenCase, new_record, taken_case
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult
from ctdeface_worker.publishing.journal import record
from ctdeface_worker.publishing.originals import archive
from ctdeface_worker.publishing.quarantine import refuse, show
from ctdeface_worker.report.model import CaseReport, State, describe
from ctdeface_worker.service.case_ends import CaseEnds

FILES = ["1.dcm", "sub/2.dcm"]


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    return spool


def taken_report(spool: ServiceSpool, *, released: bool, left_in_inbox: bool = False) -> CaseReport:
    """Take a case `a` of two files, and return the report of its job."""
    drop = replace(new_record("a", "a"), left_in_inbox=left_in_inbox)
    taken = TakenCase.create(spool, drop)
    for name in FILES:
        path = taken.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    files = tuple(
        FileResult(
            file=name,
            size=len(name),
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            fate=Fate.RELEASED if released else Fate.FAILED,
        )
        for name in FILES
    )
    result = CaseResult(released=released, code="" if released else "FaceNotFound", files=files)
    report = describe("job-1", "a", Manifest.scan(taken.files), DefaceOptions(), result)
    report = replace(report, taken=taken.taken_id)
    record(spool, report)
    return report


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return (
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if folder.exists()
        else []
    )


def ends_of(spool: ServiceSpool, rule: Originals) -> CaseEnds:
    """The last steps of a case under a rule."""
    return CaseEnds(spool=spool, originals=rule, stale_seconds=60)


def test_originals_of_a_released_case_are_archived_under_their_job(spool: ServiceSpool) -> None:
    """Nothing of them is left in the taken folder, and a repetition changes nothing."""
    report = taken_report(spool, released=True)
    for _ in range(2):
        archive(spool, report)
        assert names(spool.archive / "originals/a") == [f"job-1/{name}" for name in FILES]
        assert not taken_case(spool, report.taken).files.exists()


def test_the_same_originals_dropped_again_are_archived_beside_the_first(
    spool: ServiceSpool,
) -> None:
    """Nothing in the archive is replaced."""
    for number in ("", "-2", "-3"):
        archive(spool, taken_report(spool, released=True))
        assert names(spool.archive / f"originals/a/job-1{number}") == FILES


@pytest.mark.parametrize("rule", [Originals.DELETE, Originals.KEEP])
def test_originals_are_not_archived_when_they_are_deleted_or_kept(
    spool: ServiceSpool, rule: Originals
) -> None:
    """They go with the taken folder, after the report says that the job is done."""
    report = taken_report(spool, released=True, left_in_inbox=rule is Originals.KEEP)
    ends_of(spool, rule).before_done(report)
    assert names(spool.archive) == []
    assert names(taken_case(spool, report.taken).files) == FILES


@pytest.mark.parametrize("released", [True, False])
def test_originals_that_are_not_in_the_inbox_are_not_lost_when_they_are_to_be_kept(
    spool: ServiceSpool, released: bool
) -> None:
    """They were moved before the setting was changed, or come from a replay."""
    report = taken_report(spool, released=released)
    ends = ends_of(spool, Originals.KEEP)
    if released:
        ends.before_done(report)
        place = spool.archive / "originals/a/job-1"
    else:
        ends.refuse(report)
        place = spool.quarantine / "a/job-1/originals"
    assert names(place) == FILES


def test_a_refused_case_is_in_quarantine_with_its_report_and_originals(
    spool: ServiceSpool,
) -> None:
    """A person finds the reason beside the files."""
    report = taken_report(spool, released=False)
    for _ in range(2):
        show(spool, report, Originals.DELETE)
        assert names(spool.quarantine / "a/job-1") == [
            *(f"originals/{name}" for name in FILES),
            "report.html",
            "report.json",
        ]
        assert not taken_case(spool, report.taken).files.exists()


def test_a_refused_case_of_a_kept_inbox_has_only_its_report_in_quarantine(
    spool: ServiceSpool,
) -> None:
    """The dropped files are in the inbox; the copy goes with the taken folder."""
    show(spool, taken_report(spool, released=False), Originals.KEEP)
    assert names(spool.quarantine / "a/job-1") == ["report.html", "report.json"]


@pytest.mark.parametrize("rule", [Originals.DELETE, Originals.ARCHIVE])
def test_originals_of_a_superseded_job_are_never_deleted(
    spool: ServiceSpool, rule: Originals
) -> None:
    """Nothing was released from them."""
    report = taken_report(spool, released=True).at(State.SUPERSEDED)
    ends_of(spool, rule).refuse(report)
    assert names(spool.archive / "originals/a/job-1") == FILES


@pytest.mark.parametrize("released", [True, False])
def test_the_report_says_that_originals_are_left(spool: ServiceSpool, released: bool) -> None:
    """Both as a field and on the page, for a released and for a refused case."""
    report = replace(taken_report(spool, released=released), originals_left=True)
    if released:
        record(spool, report.at(State.DONE))
        folder = spool.reports / "a/job-1"
    else:
        refuse(spool, report, Originals.ARCHIVE, stale_seconds=60)
        folder = spool.quarantine / "a/job-1"
    assert CaseReport.from_json((folder / "report.json").read_bytes()).originals_left
    assert "the service may not move them" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("released", [True, False])
def test_a_report_without_a_taken_folder_moves_nothing(spool: ServiceSpool, released: bool) -> None:
    """Reports of release 0.1.0 have none; a folder of that place is not theirs."""
    report = taken_report(spool, released=released)
    taken_case(spool, report.taken).files.rename(spool.taken / "files")
    report = replace(report, taken="")
    if released:
        archive(spool, report)
    else:
        show(spool, report, Originals.ARCHIVE)
    assert names(spool.taken / "files") == FILES
