"""The reports on the disk: what a person reads, and the journal that says how far a job came."""

from collections.abc import Iterator
from pathlib import Path

from ctdeface_shared.jobs.reports import REPEAT, REPORT
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import case_lock_name, locked
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path
from ctdeface_worker.report.html import render
from ctdeface_worker.report.model import CaseReport, State


def report_folder(spool: Spool, report: CaseReport) -> Path:
    """Where the report of a job lies."""
    return case_path(spool.reports, report.case) / report.job_id


def record(spool: Spool, report: CaseReport, *, stale_seconds: float) -> None:
    """Write report.json, the journal, and report.html beside it, each replaced at once.

    While a job is published nothing but its next publication replaces its report, and then the
    earlier one is kept as `earlier-N.json`; whatever else is said about it meanwhile goes to
    `repeat.json`.

    Raises:
        StorageUnavailable: it could not be written; or somebody else is just publishing the case,
            and a refusal has to wait.
    """
    with atomic.storage_errors():
        if report.state is not State.REFUSED:
            record_locked(spool, report)
            return
        with locked(spool.locks, case_lock_name(report.case), stale_seconds=stale_seconds):
            record_locked(spool, report)


def record_locked(spool: Spool, report: CaseReport) -> None:
    """Do the same for whoever holds the lock of the case already.

    Raises:
        OSError: it could not be written.
    """
    folder = report_folder(spool, report)
    atomic.make_folder(folder, mode=PRIVATE)
    _write(folder, report)


def pages(spool: Spool, report: CaseReport) -> tuple[Path, Path]:
    """Where report.html and report.json of a recorded refusal lie: beside those of an earlier publication of the job, if there was one."""
    folder = report_folder(spool, report)
    published = _read(folder / REPORT)
    place = folder / (REPEAT if published is not None and published.is_published else REPORT)
    return place.with_suffix(".html"), place


def find_report(spool: Spool, case: str, job_id: str) -> CaseReport | None:
    """Return the report of a job, if there is a readable one."""
    return _read(case_path(spool.reports, case) / job_id / REPORT)


def is_over(spool: Spool, report: CaseReport) -> bool:
    """Whether this submission of a job, or a later one, came to another end than the one that a forgotten report was to bring about."""
    found = (_read(report_folder(spool, report) / name) for name in (REPORT, REPEAT))
    return any(
        other.created_at > report.created_at
        or (
            other.created_at == report.created_at
            and other.state in {State.REFUSED, State.DONE, State.SUPERSEDED}
        )
        for other in found
        if other is not None
    )


def published_reports(spool: Spool, case: str) -> Iterator[CaseReport]:
    """Yield the report of every job of a case that was published at some time."""
    for path in case_path(spool.reports, case).glob(f"*/{REPORT}"):
        report = _read(path)
        if report is not None and report.is_published and report.outputs:
            yield report


def keep_pictures(spool: Spool, report: CaseReport, work: Path) -> None:
    """Copy the previews out of a work folder into the report's folder, each appearing at once."""
    with atomic.storage_errors():
        folder = report_folder(spool, report) / "preview"
        for picture in sorted((work / "preview").glob("*.png")):
            atomic.make_folder(folder, mode=PRIVATE)
            atomic.write_file(folder / picture.name, picture.read_bytes())


def _write(folder: Path, report: CaseReport) -> None:
    earlier = _read(folder / REPORT)
    place = folder / REPORT
    if earlier is not None and earlier.is_published:
        if not report.is_published:
            place = folder / REPEAT
        elif earlier.created_at != report.created_at:
            atomic.write_file(_next_earlier(folder), earlier.to_json())
    pictures = {
        picture.stem: picture.read_bytes() for picture in sorted((folder / "preview").glob("*.png"))
    }
    page = render(report, pictures)
    atomic.write_file(place.with_suffix(".html"), page.encode("utf-8", "backslashreplace"))
    atomic.write_file(place, report.to_json())
    if report.is_published:
        for name in (REPEAT, "repeat.html"):
            (folder / name).unlink(missing_ok=True)


def _next_earlier(folder: Path) -> Path:
    number = 1
    while (folder / f"earlier-{number}.json").exists():
        number += 1
    return folder / f"earlier-{number}.json"


def _read(path: Path) -> CaseReport | None:
    try:
        return CaseReport.from_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
