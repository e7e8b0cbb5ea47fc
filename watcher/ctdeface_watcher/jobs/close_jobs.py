"""Closing of jobs whose reports say that they ended."""

from ctdeface_shared import logs
from ctdeface_shared.jobs.history import JobRecord, history_of
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.ledger import Entry, Ledger

_log = logs.logger(__name__)


def close_ended_jobs(ledger: Ledger, spool: ServiceSpool) -> None:
    """Close the jobs that have ended.

    Raises:
        OSError: a report cannot be read now.
        StorageUnavailable: the ledger cannot be used.
    """
    for entry in ledger.open_jobs():
        ended = _ended_job(entry, history_of(spool, entry.case))
        if ended is not None and ended.state is not None:
            ledger.close_job(entry.job_id, ended.state)
            _log.info("job_closed", job_id=entry.job_id, code=ended.state)


def _ended_job(entry: Entry, history: tuple[JobRecord, ...]) -> JobRecord | None:
    """Return the ended job or replay, if any."""
    for job in history:
        is_replay = job.digest == entry.digest and job.generation > entry.generation
        if job.ended and (job.job_id == entry.job_id or is_replay):
            return job
    return None
