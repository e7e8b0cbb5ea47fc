"""Does again what the queue gave up: dead letters whose case still lies in the inbox go back as jobs of a higher generation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ctdeface_shared.broker.protocols import Broker, DeadLetter
from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.history import JobReader
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob, decode_job, encode_job
from ctdeface_shared.jobs.replay_requests import ReplayRequest, pending_orders, write_order
from ctdeface_shared.replay.case import Replay, next_job
from ctdeface_shared.storage.spool import case_path

MOST_LETTERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """What became of a dead letter.

    Attributes:
        letter: as it was.
        case: its name; empty where the message cannot be read.
        order: the replay; None where the letter was left.
        reason: why it was left.
    """

    letter: DeadLetter
    case: str = ""
    order: ReplayRequest | None = None
    reason: str = ""


def revive_all(replay: Replay, broker: Broker) -> Iterator[Requeued]:
    """Replay every dead letter that can be, one by one, and say of the others why they were left.

    Raises:
        BrokerUnavailable: the queue cannot be reached; run it again.
        StorageUnavailable: storage failed; run it again.
    """
    for letter in _all(broker):
        try:
            job = decode_job(letter.body)
        except PermanentError as error:
            yield Requeued(letter=letter, reason=f"{error.code}: {error}")
            continue
        reason = _why_not(replay, job)
        if reason:
            yield Requeued(letter=letter, case=job.case, reason=reason)
            continue
        order = _order(replay, job)
        if not replay.only_look:
            write_order(replay.spool, order)
            replay.step("ordered")
            if not broker.requeue(letter.tag, encode_job(order.job)):
                yield Requeued(
                    letter=letter, case=job.case, reason="somebody else took it out meanwhile"
                )
                continue
            replay.step("revived")
            order = replace(order, published=True)
            write_order(replay.spool, order)
        yield Requeued(letter=letter, case=job.case, order=order)


def _all(broker: Broker) -> Sequence[DeadLetter]:
    return broker.dead_letters(MOST_LETTERS)


def _why_not(replay: Replay, job: DefaceJob) -> str:
    """Say why a job that was given up is not to be done again; empty when it is."""
    folder = case_path(replay.spool.inbox, job.case)
    if folder.is_symlink() or not folder.is_dir():
        return "its case is no longer in the inbox"
    if Manifest.scan(folder).digest != job.manifest.digest:
        return "its case has changed since: the watcher makes a job of it"
    for record in JobReader(replay.spool.reports).of_case(job.case):
        if record.job_id == job.job_id and record.ended:
            return f"it has ended meanwhile ({record.state})"
    return ""


def _order(replay: Replay, job: DefaceJob) -> ReplayRequest:
    """Make the order, or take the one that an interrupted replay left."""
    options = replay.choices.over(job.options)
    for order in pending_orders(replay.spool, job.case):
        if (
            order.replays == job.job_id
            and order.job.options == options
            and order.job.manifest == job.manifest
        ):
            return order
    renewed = replace(job, options=options, submitted_at=max(job.submitted_at, replay.now()))
    return ReplayRequest(
        job=next_job(JobReader(replay.spool.reports).of_case(job.case), renewed), replays=job.job_id
    )
