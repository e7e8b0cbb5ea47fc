"""Closing of jobs whose reports say that they ended."""

from functools import partial

from ctdeface_shared import logs
from ctdeface_shared.jobs.history import JobRecord, history_of, require_readable_report
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.ledger import Entry, Ledger
from ctdeface_watcher.skips import Skips

_PLACE = "reports"

_log = logs.logger(__name__)


def close_ended_jobs(ledger: Ledger, spool: ServiceSpool, skips: Skips) -> None:
    """Close the jobs that have ended.

    Args:
        ledger: holds the open jobs.
        spool: holds the reports.
        skips: receives the jobs whose reports cannot be read.

    Raises:
        StorageUnavailable: the ledger cannot be used.
    """
    entries = ledger.open_jobs()
    skips.keep_only(_PLACE, frozenset(_name(entry) for entry in entries).__contains__)
    for entry in entries:
        ended = skips.attempt(_PLACE, _name(entry), partial(_read_end, spool, entry), None)
        if ended is not None and ended.state is not None:
            ledger.close_job(entry.job_id, ended.state)
            _log.info("job_closed", job_id=entry.job_id, code=ended.state)


def _name(entry: Entry) -> str:
    return f"{entry.case}/{entry.job_id}"


def _read_end(spool: ServiceSpool, entry: Entry) -> JobRecord | None:
    """Return the ended job of an entry, if any.

    Raises:
        DamagedFile: the job has a report that cannot be read.
        OSError: a report cannot be read now.
    """
    ended = _ended_job(entry, history_of(spool, entry.case))
    if ended is None:
        require_readable_report(spool, entry.case, entry.job_id)
    return ended


def _ended_job(entry: Entry, history: tuple[JobRecord, ...]) -> JobRecord | None:
    """Return the ended job or replay, if any."""
    for job in history:
        is_replay = job.digest == entry.digest and job.generation > entry.generation
        if job.ended and (job.job_id == entry.job_id or is_replay):
            return job
    return None
