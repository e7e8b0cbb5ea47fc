"""Replays that were killed before they had written their job."""

from time import time

from ctdeface_shared.jobs.replay_requests import pending_orders
from ctdeface_shared.jobs.taken import DropRecord, TakenCase
from ctdeface_shared.replay.case import replay_lock
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, is_held
from ctdeface_shared.storage.spool import ServiceSpool

REPLAY_SECONDS = 120.0
"""After this time a replay without lock was killed."""


def continue_replay(spool: ServiceSpool, taken: TakenCase, record: DropRecord) -> None:
    """Write the job of a killed replay, or remove its folder if it holds no originals.

    Otherwise the folder would keep later drops of the case waiting.

    Args:
        spool: the folders of the service.
        taken: the folder of the replay.
        record: its record.

    Raises:
        OSError: storage failed; the call can be repeated.
        InvalidMessage: the job cannot be encoded.
    """
    is_recent = time() - record.taken_at < REPLAY_SECONDS
    if is_recent or is_held(spool.locks / replay_lock(record.case), MISSED_HEARTBEATS_SECONDS):
        return
    if not taken.files.is_dir():
        taken.remove()  # its request remains, and the same replay begins again
        return
    for order in pending_orders(spool, record.case):
        if order.job.taken == taken.taken_id:
            taken.write_job(order.job)
