"""Rebuilding of an empty ledger from the reports.

Jobs without a report stay unknown. Their cases are still in the inbox and are published once more
as the same jobs.
"""

from datetime import datetime

from ctdeface_shared import logs
from ctdeface_shared.jobs.history import JobReader, JobRecord
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.ledger import Entry, Ledger

_log = logs.logger(__name__)


def rebuild(ledger: Ledger, spool: ServiceSpool) -> None:
    """Add every reported job to an empty ledger.

    Raises:
        OSError: the reports cannot be read.
        StorageUnavailable: the ledger cannot be used.
    """
    if not ledger.is_empty():
        return
    reported = [
        record
        for record in JobReader(spool.reports).read()
        if record.state and _is_text(record.case)
    ]
    for record in reported:
        ledger.add(
            Entry(
                job_id=record.job_id,
                case=record.case,
                digest=record.digest,
                generation=record.generation,
                published_at=_published_at(record),
                closed=record.state if record.ended else None,
            )
        )
    if reported:
        _log.warning("ledger_rebuilt", files=len(reported))


def _is_text(case: str) -> bool:
    try:
        case.encode()
    except UnicodeEncodeError:
        return False  # such a case was never published
    return True


def _published_at(record: JobRecord) -> float:
    try:
        return datetime.fromisoformat(record.created_at).timestamp()
    except ValueError:
        return record.reported_at
