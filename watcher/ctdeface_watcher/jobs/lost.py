"""Jobs that were lost with their queue.

Such a job was published, has no report and is not in the queue. Its case is published once more. If
in doubt a job is published twice, which is harmless: workers recognize it by its id.
"""

from collections.abc import Iterable

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.history import is_worked_on
from ctdeface_shared.jobs.messages import decode_job
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.ledger import Entry

_log = logs.logger(__name__)

_MOST_DEAD_LETTERS = 1000
"""With more dead letters than these the queue is not searched."""


def find_lost_jobs(
    overdue: Iterable[Entry], broker: Broker, spool: ServiceSpool, *, longest_job_seconds: float
) -> tuple[Entry, ...]:
    """Return the open jobs that neither the queue nor a worker holds.

    Args:
        overdue: jobs that were published long ago and have no report.
        broker: the queue.
        spool: holds the workers' claims and attempts.
        longest_job_seconds: an attempt that began longer ago has ended.

    Raises:
        BrokerUnavailable: the queue cannot be read now, or there are dead letters that this user
            may not read.
    """
    depth = broker.depth()
    if depth.ready or depth.delayed or depth.held or depth.dead > _MOST_DEAD_LETTERS:
        return ()
    dead = _dead_jobs(broker) if depth.dead else frozenset[str]()
    return tuple(
        entry
        for entry in overdue
        if entry.job_id not in dead and not _may_be_held(spool, entry, longest_job_seconds)
    )


def _may_be_held(spool: ServiceSpool, entry: Entry, longest_seconds: float) -> bool:
    """Return whether a worker has a job; True if claim or attempts cannot be read now."""
    try:
        return is_worked_on(spool, entry.case, entry.job_id, longest_seconds=longest_seconds)
    except OSError as error:
        _log.warning("claim_not_read", job_id=entry.job_id, code=type(error).__name__)
        return True


def _dead_jobs(broker: Broker) -> frozenset[str]:
    """Return the ids of dead-lettered jobs; they would only fail again."""
    ids = set()
    for letter in broker.dead_letters(_MOST_DEAD_LETTERS):
        try:
            ids.add(decode_job(letter.body).job_id)
        except PermanentError:
            continue
    return frozenset(ids)
