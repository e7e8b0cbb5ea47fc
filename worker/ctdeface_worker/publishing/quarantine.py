"""Refusals in reports and quarantine."""

from pathlib import Path

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import UNFINISHED, case_lock_name, locked
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, case_path
from ctdeface_worker.publishing import originals
from ctdeface_worker.publishing.journal import (
    find_report,
    pages,
    published_already,
    record,
)
from ctdeface_worker.publishing.outbox import holds
from ctdeface_worker.report.model import CaseReport, State


def refuse(
    spool: ServiceSpool,
    report: CaseReport,
    rule: Originals,
    *,
    stale_seconds: float,
) -> CaseReport:
    """Record a refusal and move the case to the quarantine.

    The lock of the case is held, so no other worker can publish the case meanwhile. Every step can
    be repeated after a crash.

    Args:
        spool: the folders of the service.
        report: state `refused`.
        rule: what happens to dropped files.
        stale_seconds: age after which a lock that was not touched counts as abandoned.

    Returns:
        The report that stands: this one, or the report of the same submission that another worker
        has published.

    Raises:
        StorageUnavailable: the refusal cannot be recorded now, or another worker is about to
            publish the job.
    """
    try:
        with locked(spool.locks, case_lock_name(report.case), stale_seconds=stale_seconds):
            published = published_already(spool, report)
            if published is not None:
                return published
            _require_not_prepared(spool, report)
            record(spool, report)
            show(spool, report, rule)
            return report
    except OSError as error:
        raise StorageUnavailable(f"the refusal cannot be recorded: {error.strerror}") from error


def show(spool: ServiceSpool, report: CaseReport, rule: Originals) -> None:
    """Show a recorded refusal with its originals in quarantine.

    With the rule `keep` the dropped files are in the inbox, so the quarantine holds pages only.

    Raises:
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    place = _copy_pages(spool, report)
    if rule is not Originals.KEEP:
        originals.move(spool, report, place / "originals")


def _copy_pages(spool: ServiceSpool, report: CaseReport) -> Path:
    """Copy report.html and report.json to the quarantine and return their folder."""
    place = case_path(spool.quarantine, report.case) / report.job_id
    atomic.make_folder(place, mode=PRIVATE)
    for page, name in zip(pages(spool, report), ("report.html", "report.json"), strict=True):
        atomic.write_file(place / name, page.read_bytes())
    return place


def _require_not_prepared(spool: ServiceSpool, report: CaseReport) -> None:
    """Check that no earlier attempt is ready to publish.

    Raises:
        StorageUnavailable: an earlier attempt is, and will be published.
    """
    earlier = find_report(spool, report.case, report.job_id)
    if earlier is None or earlier.state is not State.PREPARED:
        return
    staged = spool.staging / earlier.staged
    if (staged / UNFINISHED).exists() and holds(staged / "dicom", earlier):
        raise StorageUnavailable(
            "another attempt has prepared the case, so it is published and not refused"
        )
