"""Requeue dead letters whose case is in its taken folder, as jobs of a higher generation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from ctdeface_shared.broker.protocols import Broker, DeadLetter
from ctdeface_shared.broker.settlement import code_of
from ctdeface_shared.errors import PermanentError, TransientError
from ctdeface_shared.jobs.history import JobReader
from ctdeface_shared.jobs.messages import DefaceJob, decode_job, encode_job
from ctdeface_shared.jobs.replay_requests import ReplayRequest, pending_orders, write_order
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.replay.case import Replay, next_job

MOST_LETTERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """The result for one dead letter.

    Attributes:
        letter: the dead letter.
        case: name of the case; empty if the message cannot be read.
        request: the replay; None if the letter stays.
        reason: why it stays.
    """

    letter: DeadLetter
    case: str = ""
    request: ReplayRequest | None = None
    reason: str = ""


def requeue_dead_letters(replay: Replay, broker: Broker) -> Iterator[Requeued]:
    """Requeue every dead letter that can be processed again, one by one.

    Raises:
        BrokerUnavailable: the queue cannot be reached; this can be repeated.
        StorageUnavailable: storage failed; this can be repeated.
    """
    for letter in broker.dead_letters(MOST_LETTERS):
        result = boundary(partial(_requeue_letter, replay, broker, letter))
        if isinstance(result, TransientError):
            raise result
        if isinstance(result, Exception):  # one letter cannot stop the others
            yield Requeued(
                letter=letter, reason=f"{code_of(result)}: it stays as it is; see the log"
            )
        else:
            yield result


def _requeue_letter(replay: Replay, broker: Broker, letter: DeadLetter) -> Requeued:
    try:
        job = decode_job(letter.body, now=replay.now())
    except PermanentError as error:
        return Requeued(letter=letter, reason=f"{error.code}: {error}")
    reason = _why_not(replay, job)
    if reason:
        return Requeued(letter=letter, case=job.case, reason=reason)
    return _requeue(replay, broker, letter, job)


def _requeue(replay: Replay, broker: Broker, letter: DeadLetter, job: DefaceJob) -> Requeued:
    request = _request(replay, job)
    if not replay.dry_run:
        write_order(replay.spool, request)
        taken_case(replay.spool, job.taken).write_job(request.job)
        replay.step("ordered")
        if not broker.requeue(letter.tag, encode_job(request.job)):
            reason = "another process has taken it out of the queue meanwhile"
            return Requeued(letter=letter, case=job.case, reason=reason)
        replay.step("requeued")
        request = replace(request, published=True)
        write_order(replay.spool, request)
    return Requeued(letter=letter, case=job.case, request=request)


def _why_not(replay: Replay, job: DefaceJob) -> str:
    """Return why a job cannot be processed again, or an empty text."""
    if not job.taken:
        return "it is of release 0.1.0: its case is in the inbox, and gets a job of its own"
    for record in JobReader(replay.spool.reports).of_case(job.case):
        if record.job_id == job.job_id and record.ended:
            return f"it has ended meanwhile ({record.state})"
    taken = taken_case(replay.spool, job.taken)
    written = taken.job()
    if written is None or not taken.files.is_dir():
        return "its files are gone: drop the case again"
    orders = pending_orders(replay.spool, job.case)
    own = {job.job_id, *(one.job.job_id for one in orders if one.replays == job.job_id)}
    if written.case != job.case or written.job_id not in own:
        return "its files belong to another job"
    return ""


def _request(replay: Replay, job: DefaceJob) -> ReplayRequest:
    """Return the request of an interrupted replay, or a new one."""
    options = replay.changes.over(job.options)
    for request in pending_orders(replay.spool, job.case):
        if (
            request.replays == job.job_id
            and request.job.options == options
            and request.job.manifest == job.manifest
        ):
            return request
    renewed = replace(job, options=options, submitted_at=max(job.submitted_at, replay.now()))
    records = JobReader(replay.spool.reports).of_case(job.case)
    return ReplayRequest(job=next_job(records, renewed), replays=job.job_id)
