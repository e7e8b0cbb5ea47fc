"""Audit log entries about released, refused and superseded cases."""

from ctdeface_shared.audit.entry import CaseEnd, Outcome, digest_of_report
from ctdeface_shared.audit.writer import AuditLog
from ctdeface_shared.storage.spool import Spool
from ctdeface_worker.publishing.journal import published_reports
from ctdeface_worker.report.model import CaseReport, State

UNSEEN = frozenset({State.REFUSED, State.SUPERSEDED})
"""Final states without an output in the outbox."""


def attest(log: AuditLog, spool: Spool, refused: Outcome, report: CaseReport) -> None:
    """Write an audit entry unless there is one already.

    Args:
        log: the audit log.
        spool: holds the reports of the case.
        refused: the outcome that a refusal is recorded as.
        report: of the job; a job with a visible output counts as released before it is done.

    Raises:
        StorageUnavailable: the entry could not be written; the call can be repeated.
    """
    log.record(_end_of(spool, report, refused))


def _end_of(spool: Spool, report: CaseReport, refused: Outcome) -> CaseEnd:
    """Describe the end of a job by codes and digests only."""
    result = report.result
    return CaseEnd(
        job_id=report.job_id,
        submitted_at=report.created_at,
        outcome={State.REFUSED: refused, State.SUPERSEDED: Outcome.SUPERSEDED}.get(
            report.state, Outcome.RELEASED
        ),
        code=result.code,
        files=len(report.outputs) if report.is_published else 0,
        inputs=report.inputs_digest,
        outputs=report.outputs_digest if report.is_published else "",
        report=digest_of_report(report.to_json()),
        segmenter=result.segmenter,
        model=result.model_digest,
        program=report.versions.get("ctdeface", ""),
        replaces=_replaced(spool, report) if report.is_published else (),
    )


def _replaced(spool: Spool, report: CaseReport) -> tuple[str, ...]:
    """Return the jobs of the case whose output this one replaces."""
    others = (
        other for other in published_reports(spool, report.case) if other.job_id != report.job_id
    )
    return tuple(sorted(other.job_id for other in others if other.created_at <= report.created_at))
