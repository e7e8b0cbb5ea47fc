"""Reports on disk, which are also the jobs' journal."""

import os
from collections.abc import Iterator
from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.jobs.reports import REPEAT, REPORT
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import (
    LARGEST_REPORT_BYTES,
    LARGEST_STATE_BYTES,
    DamagedFile,
    read_bounded,
)
from ctdeface_shared.storage.locks import case_lock_name, locked
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path
from ctdeface_worker.report.html import render
from ctdeface_worker.report.index import update_index
from ctdeface_worker.report.model import CaseReport, State

_log = logs.logger(__name__)


def report_folder(spool: Spool, report: CaseReport) -> Path:
    """Return the folder of a job's report."""
    return case_path(spool.reports, report.case) / report.job_id


def record(spool: Spool, report: CaseReport) -> None:
    """Write report.json and report.html, each replaced atomically.

    The report of a published job is replaced only by the next publication of the job; the earlier
    report is then kept as `earlier-N.json`. Any other report of a published job goes to
    `repeat.json`. A refusal is recorded while the case's lock is held.

    Raises:
        StorageUnavailable: the report could not be written.
    """
    folder = report_folder(spool, report)
    with atomic.storage_errors():
        atomic.make_folder(folder, mode=PRIVATE)
        _write(folder, report)


def record_refusal(spool: Spool, report: CaseReport, *, stale_seconds: float) -> None:
    """Record a refusal while the case's lock is held.

    Raises:
        StorageUnavailable: the report could not be written, or another process is publishing the
            case.
    """
    with (
        atomic.storage_errors(),
        locked(spool.locks, case_lock_name(report.case), stale_seconds=stale_seconds),
    ):
        record(spool, report)


def show_in_index(spool: Spool, report: CaseReport, *, stale_seconds: float) -> None:
    """Show a case's end in index.html.

    A failure is logged and changes nothing.
    """
    try:
        update_index(spool, report, stale_seconds=stale_seconds)
    except (StorageUnavailable, OSError) as error:
        _log.warning("index_not_updated", job_id=report.job_id, code=type(error).__name__)


def pages(spool: Spool, report: CaseReport) -> tuple[Path, Path]:
    """Return the paths of report.html and report.json of a recorded refusal.

    If the job was published earlier, they are repeat.html and repeat.json.
    """
    folder = report_folder(spool, report)
    published = _read(folder / REPORT)
    place = folder / (REPEAT if published is not None and published.is_published else REPORT)
    return place.with_suffix(".html"), place


def find_report(spool: Spool, case: str, job_id: str) -> CaseReport | None:
    """Return the report of a job, None without a readable one."""
    return _read(case_path(spool.reports, case) / job_id / REPORT)


def published_already(spool: Spool, report: CaseReport) -> CaseReport | None:
    """Return the published report of the same submission.

    A repetition of a job has another submission time.
    """
    found = find_report(spool, report.case, report.job_id)
    if found is None or not found.is_published or found.created_at != report.created_at:
        return None
    return found


def is_over(spool: Spool, report: CaseReport) -> bool:
    """Return whether this or a later submission has ended."""
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
    """Yield the report of every published job of a case."""
    for path in case_path(spool.reports, case).glob(f"*/{REPORT}"):
        report = _read(path)
        if report is not None and report.is_published and report.outputs:
            yield report


def keep_pictures(spool: Spool, report: CaseReport, work: Path) -> None:
    """Copy the previews from the work folder to the report's folder."""
    with atomic.storage_errors():
        folder = report_folder(spool, report) / "preview"
        for picture in sorted((work / "preview").glob("*.png")):
            atomic.make_folder(folder, mode=PRIVATE)
            content = read_bounded(picture, LARGEST_STATE_BYTES)
            atomic.write_file(folder / picture.name, content)


def _write(folder: Path, report: CaseReport) -> None:
    earlier = _read(folder / REPORT)
    place = folder / REPORT
    if earlier is not None and earlier.is_published:
        if not report.is_published:
            place = folder / REPEAT
        elif earlier.created_at != report.created_at:
            atomic.write_file(_next_earlier(folder), earlier.to_json())
    page = render(report, _pictures(folder / "preview"))
    atomic.write_file(place.with_suffix(".html"), page.encode("utf-8", "backslashreplace"))
    atomic.write_file(place, report.to_json())
    if report.is_published:
        for name in (REPEAT, "repeat.html"):
            (folder / name).unlink(missing_ok=True)


def _pictures(folder: Path) -> dict[str, bytes]:
    """Return the previews; a damaged one is left out."""
    pictures = {}
    for picture in sorted(folder.glob("*.png")):
        try:
            pictures[picture.stem] = read_bounded(picture, LARGEST_STATE_BYTES)
        except (OSError, DamagedFile) as error:
            _log.warning("picture_left_out", code=type(error).__name__)
    return pictures


def _next_earlier(folder: Path) -> Path:
    number = 1
    while os.path.lexists(folder / f"earlier-{number}.json"):
        number += 1
    return folder / f"earlier-{number}.json"


def _read(path: Path) -> CaseReport | None:
    try:
        return CaseReport.from_json(read_bounded(path, LARGEST_REPORT_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
