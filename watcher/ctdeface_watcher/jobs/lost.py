"""Jobs of a queue that was lost: published, never reported about, and nowhere in the queue. Their cases are published once more.

In doubt a job comes twice, which is harmless: workers know it by its id.
"""

from time import monotonic, time

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.history import is_worked_on
from ctdeface_shared.jobs.messages import decode_job
from ctdeface_watcher.context import WatcherContext, WatchState

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
        if entry.job_id not in dead and not is_worked_on(
            context.spool,
            entry.case,
            entry.job_id,
            longest_seconds=context.longest_job_seconds,
        ):
            context.ledger.forget_job(entry.job_id)
            state.judged.pop(entry.case, None)
            _log.warning("job_lost_by_queue", job_id=entry.job_id)
    return True


def _dead(broker: Broker) -> frozenset[str]:
    """Return the ids of the jobs that were given up; publishing those again would go round in circles."""
    ids = set()
    for letter in broker.dead_letters(_MOST_DEAD):
        try:
            ids.add(decode_job(letter.body).job_id)
        except PermanentError:
            continue
    return frozenset(ids)
