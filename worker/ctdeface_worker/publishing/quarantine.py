"""A refusal is recorded and shown in the quarantine, unless another worker was faster and has published the job."""

import os
from dataclasses import replace

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.storage.locks import UNFINISHED, case_lock_name, locked
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.publishing import originals
from ctdeface_worker.publishing.journal import find_report, record_locked
from ctdeface_worker.publishing.outbox import holds
from ctdeface_worker.report.model import CaseReport, State


def refuse(
    spool: ServiceSpool,
    report: CaseReport,
    rule: Originals,
    *,
    stale_seconds: float,
    rename: originals.Rename = os.rename,
) -> CaseReport:
    """Record a refusal and put the case into the quarantine; no other worker can publish the case meanwhile.

    Args:
        spool: where everything lies.
        report: state `refused`.
        rule: what happens to dropped files.
        stale_seconds: after which a lock that nobody touched counts as abandoned.
        rename: moves a folder at once.

    Returns:
        The report that stands: this one, or the one of the same job that another worker published.

    Raises:
        StorageUnavailable: it cannot be recorded now, or another worker is about to publish the
            job.
    """
    try:
        with locked(spool.locks, case_lock_name(report.case), stale_seconds=stale_seconds):
            there = find_report(spool, report.case, report.job_id)
            if there is not None and there.is_published and there.created_at == report.created_at:
                return there
            if there is not None and there.state is State.PREPARED:
                _require_unwanted(spool, there)
            record_locked(spool, report)
            if originals.quarantine(spool, report, rule, rename):
                report = replace(report, originals_left=True)
                record_locked(spool, report)
                originals.show_report(spool, report)
            return report
    except OSError as error:
        raise StorageUnavailable(f"the refusal cannot be recorded: {error.strerror}") from error


def _require_unwanted(spool: ServiceSpool, prepared: CaseReport) -> None:
    """Check that what an earlier attempt staged will not be published.

    Raises:
        StorageUnavailable: it will be.
    """
    staged = spool.staging / prepared.staged
    if (staged / UNFINISHED).exists() and holds(staged / "dicom", prepared):
        raise StorageUnavailable(
            "another attempt has prepared the case, so it is published and not refused"
        )
