"""Jobs of a queue that was lost: published, never reported about, and nowhere in the queue. Their cases are published once more.

In doubt a job comes twice, which is harmless: workers know it by its id.
"""

from time import monotonic, time

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.attempt_log import ATTEMPTS
from ctdeface_shared.jobs.messages import decode_job
from ctdeface_shared.storage.locks import is_claimed
from ctdeface_shared.storage.spool import case_path
from ctdeface_watcher.context import WatcherContext, WatchState
from ctdeface_watcher.jobs.ledger import Entry

_PAUSE_SECONDS = 60.0
_MOST_DEAD = 1000

_log = logs.logger(__name__)


def find_lost(context: WatcherContext, state: WatchState) -> bool:
    """Forget the open jobs that the queue no longer holds, so that the next look publishes what still lies in the inbox.

    Returns:
        Whether it was time to ask the queue, and it told.

    Raises:
        BrokerUnavailable: the queue cannot tell now, or there are dead letters and this user may
            not read them.
        StorageUnavailable: the ledger cannot be used.
        OSError: locks or reports cannot be read right now.
    """
    old = [
        entry
        for entry in context.ledger.open_jobs()
        if time() - entry.published_at > context.lost_seconds
    ]
    if not old or (
        state.asked_at is not None
        and monotonic() - state.asked_at < min(_PAUSE_SECONDS, context.lost_seconds)
    ):
        return False
    state.asked_at = monotonic()
    depth = context.broker.depth()
    if depth.ready or depth.delayed or depth.held or depth.dead > _MOST_DEAD:
        return True
    dead = _dead(context.broker) if depth.dead else frozenset[str]()
    for entry in old:
        if entry.job_id not in dead and not _is_worked_on(context, entry):
            context.ledger.forget_job(entry.job_id)
            state.judged.pop(entry.case, None)
            _log.warning("job_lost_by_queue", job_id=entry.job_id)
    return True


def _is_worked_on(context: WatcherContext, entry: Entry) -> bool:
    """Whether a worker has the job in hand, which not every queue can tell: its claim lives, or it may still last."""
    if is_claimed(context.spool.locks, entry.job_id):
        return True
    folder = case_path(context.spool.reports, entry.case) / entry.job_id
    try:
        written = (folder / ATTEMPTS).stat().st_mtime
        is_open = attempt_log.read(folder).is_open
        return is_open and time() - written < context.longest_job_seconds
    except FileNotFoundError:
        return False


def _dead(broker: Broker) -> frozenset[str]:
    """Return the ids of the jobs that were given up; publishing those again would go round in circles."""
    ids = set()
    for letter in broker.dead_letters(_MOST_DEAD):
        try:
            ids.add(decode_job(letter.body).job_id)
        except PermanentError:
            continue
    return frozenset(ids)
