"""Consumer of one worker slot, from delivery to settlement.

    receive → run case, while the queue is tended → conclude → settle

The case runs in a thread of its own (`run_job`), because RabbitMQ takes the job away from a
connection that shows no heartbeat.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker, Delivery
from ctdeface_shared.broker.settlement import (
    Ack,
    Quarantine,
    Reject,
    Requeue,
    Retry,
    RetryRule,
    Settlement,
    code_of,
    decide,
)
from ctdeface_shared.errors import (
    CtDefaceError,
    EscapingPath,
    InputChanged,
    InvalidMessage,
    StorageUnavailable,
    TransientError,
)
from ctdeface_shared.jobs.history import history_of, instant
from ctdeface_shared.jobs.messages import CaseEvent, DefaceJob, EventKind, decode_job
from ctdeface_shared.jobs.moments import is_too_late
from ctdeface_shared.jobs.taken import taken_case, taken_cases
from ctdeface_shared.lifecycle import boundary, notify
from ctdeface_shared.storage.disk import require_free_space
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_worker.case.child_process import UnexpectedError, WorkerCrashed
from ctdeface_worker.case.run import (
    CaseInput,
    CaseResources,
    CaseRun,
    case_input,
    refuse_case,
    run_case,
)
from ctdeface_worker.report.model import CaseReport, State
from ctdeface_worker.service.attempts import Attempt, JobInProgress, claimed
from ctdeface_worker.service.earlier_release import finish_job
from ctdeface_worker.service.events import Hook, JobEvent, Progress, outcome_of

RECEIVE_SECONDS = 2.0
TEND_SECONDS = 0.5
PAUSE_SECONDS = 5.0
_REMEMBERED_BUGS = 1000
"""Messages whose bugs are counted; earlier ones are forgotten."""

_log = logs.logger(__name__)


class Stopped(CtDefaceError):
    """The worker is stopping; the job goes back to the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSlot:
    """One slot with its own queue connection and child.

    Attributes:
        name: shown in logs, metrics and traces.
        broker: the queue.
        resources: what every case is run with.
        spool: folders of the service; the same as in the resources.
        rule: how often and when a job is tried again.
        stop: set when the worker must end.
        hooks: called with every event of a job.
        bugs: how often each message has met a bug outside its case, by its SHA-256.
    """

    name: str
    broker: Broker
    resources: CaseResources
    spool: ServiceSpool
    rule: RetryRule
    stop: threading.Event
    hooks: Sequence[Hook] = ()
    bugs: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The consequences of a delivery.

    Attributes:
        settlement: how the delivery is settled.
        job_id: identity of the job; empty when the message is not a job.
        report: report of the job, if it has ended.
        repeated: whether nothing was done, because the job had ended before this delivery or
            another one has taken its place.
    """

    settlement: Settlement
    job_id: str = ""
    report: CaseReport | None = None
    repeated: bool = False


def serve(slot: WorkerSlot) -> None:
    """Handle jobs until the worker is stopped.

    An error costs one job only.

    Raises:
        ConfigurationError: the queue refuses this worker, which waiting would not change.
    """
    try:
        while not slot.stop.is_set():
            delivery = receive(slot)
            if delivery is None:
                continue
            begun_at = monotonic()
            event = JobEvent(kind=Progress.RECEIVED, traceparent=delivery.traceparent)
            notify(slot.hooks, event)
            conclusion = boundary(partial(handle, slot, delivery))
            if isinstance(conclusion, Exception):
                conclusion = conclude_bug(slot, delivery, conclusion)
            settle(slot, delivery, conclusion, monotonic() - begun_at)
    finally:
        slot.resources.child.close()
        slot.broker.close()


def receive(slot: WorkerSlot) -> Delivery | None:
    """Take the next job from the queue.

    Returns None when there is none, or when disk space is short.

    Raises:
        ConfigurationError: the queue refuses this worker.
    """
    try:
        require_free_space(slot.spool.disk_places, slot.resources.settings.output.min_free_gb)
    except (StorageUnavailable, OSError):
        _log.warning("paused_for_disk_space", worker=slot.name)
        slot.broker.tend(PAUSE_SECONDS)
        return None
    try:
        return slot.broker.receive(RECEIVE_SECONDS)
    except TransientError:
        _log.warning("queue_not_reachable", worker=slot.name)
        return None


def handle(slot: WorkerSlot, delivery: Delivery) -> Conclusion:
    """Run the case of a delivery and conclude its settlement."""
    try:
        job = decode_job(delivery.body)
    except (InvalidMessage, EscapingPath) as error:
        return Conclusion(settlement=Reject(error.code))
    with logs.about_job(job.job_id):
        try:
            if job.taken:
                return _handle_job(slot, delivery, job)
            _log.info("job_of_an_earlier_release", worker=slot.name)
            finish_job(slot.resources, job)
            return Conclusion(settlement=Ack(), job_id=job.job_id, repeated=True)
        except JobInProgress:
            # Delivered twice after a late ack or a broken connection: wait for the other worker.
            settlement = Retry(slot.rule.delay_after(1))
        except (StorageUnavailable, OSError) as error:
            # Not a fault of the case: it waits without losing an attempt.
            _report_failure(slot, job.job_id, delivery.attempt, code_of(error))
            settlement = Retry(slot.rule.delay_after(delivery.attempt))
        return Conclusion(settlement=settlement, job_id=job.job_id)


def _handle_job(slot: WorkerSlot, delivery: Delivery, job: DefaceJob) -> Conclusion:
    """Run the case of a job under the claim on it.

    The record beside the files decides, because others may be able to send messages.

    Raises:
        JobInProgress: another worker has the job.
        StorageUnavailable: a refusal cannot be recorded now.
        OSError: storage failed.
    """
    written = taken_case(slot.spool, job.taken).job()
    foreign = written is not None and written.case != job.case
    if foreign or (written is None and _is_invented(slot.spool, job)):
        return Conclusion(settlement=Reject(InvalidMessage.__name__), job_id=job.job_id)
    if written != job and (written is not None or _was_replaced(slot.spool, job)):
        _log.warning("another_job_took_its_place", worker=slot.name)
        return Conclusion(settlement=Ack(), job_id=job.job_id, repeated=True)
    with claimed(slot.spool.locks, job.job_id):
        case = case_input(slot.spool, job, slot.resources.settings.spool.originals)
        folder = case_path(slot.spool.reports, job.case) / job.job_id
        attempt = Attempt.after(folder, delivery.attempt)
        outcome = run_job(slot, case, attempt)
        return conclude(slot, case, outcome, attempt)


def _was_replaced(spool: ServiceSpool, job: DefaceJob) -> bool:
    """Return whether the taken folder of a job is gone because a later job has used it."""
    if taken_case(spool, job.taken).folder.exists():
        return False
    submitted_at = instant(job.submitted_at)
    return any(
        one.ended and one.job_id != job.job_id and one.created_at > submitted_at
        for one in history_of(spool, job.case)
    )


def _is_invented(spool: ServiceSpool, job: DefaceJob) -> bool:
    """Return whether the watcher cannot have sent a job that is not written beside its files.

    A job is written before it is sent, so that files without one have none yet, and the files of a
    job are in one folder only.
    """
    if is_too_late(job.submitted_at, datetime.now(UTC)):
        return True  # it would make every later job of the case the older one
    taken = taken_case(spool, job.taken)
    if any(os.path.lexists(place) for place in (taken.files, taken.archive, taken.drop)):
        return True
    return not _was_replaced(spool, job) and any(
        (other := one.job()) is not None and other.job_id == job.job_id
        for one in taken_cases(spool)
    )


def run_job(slot: WorkerSlot, case: CaseInput, attempt: Attempt) -> CaseRun | Exception:
    """Run a case in a thread while tending the queue.

    Returns:
        The end of the case, or the error that prevents it; `Stopped` when the grace period of a
        stopping worker is over.
    """

    def on_stage(stage: str) -> None:
        event = JobEvent(kind=Progress.STAGE_BEGUN, job_id=case.job_id, stage=stage)
        notify(slot.hooks, event)

    begin_attempt = partial(_begin_attempt, slot, case, attempt)
    done: Future[CaseRun | Exception] = Future()

    def run() -> None:
        work = partial(run_case, case, slot.resources, on_stage, begin_attempt)
        done.set_result(boundary(work))

    thread = threading.Thread(target=run, name=f"{slot.name}-case", daemon=True)
    thread.start()
    deadline: float | None = None
    while not done.done():
        slot.broker.tend(TEND_SECONDS)
        if slot.stop.is_set():
            deadline = deadline or monotonic() + slot.resources.settings.work.grace_period
            if monotonic() >= deadline:
                slot.resources.child.interrupt()
                thread.join()
                break
    outcome = done.result()
    if deadline is not None and monotonic() >= deadline and isinstance(outcome, Exception):
        return Stopped("the worker was stopped")
    return outcome


def conclude(
    slot: WorkerSlot, case: CaseInput, outcome: CaseRun | Exception, attempt: Attempt
) -> Conclusion:
    """Conclude the settlement from the outcome of a case.

    Raises:
        StorageUnavailable: a refusal cannot be recorded now.
        OSError: storage failed.
    """
    if isinstance(outcome, CaseRun):
        return _conclude_report(slot, case, outcome, attempt)
    if isinstance(outcome, Stopped):
        attempt.hand_back()
        return Conclusion(settlement=Requeue(), job_id=case.job_id)
    decision = decide(outcome, attempt.number, slot.rule)
    code = outcome.code if isinstance(outcome, CtDefaceError) else UnexpectedError.__name__
    event = JobEvent(
        kind=Progress.ATTEMPT_FAILED, job_id=case.job_id, attempt=attempt.number, code=code
    )
    notify(slot.hooks, event)
    if isinstance(outcome, StorageUnavailable):
        # Not a fault of the case: it waits as long as it takes.
        attempt.hand_back()
        decision = Retry(slot.rule.delay_after(attempt.number))
    if not isinstance(decision, Quarantine):
        attempt.fail(code)
        return Conclusion(settlement=decision, job_id=case.job_id)
    stage = JobEvent(kind=Progress.STAGE_BEGUN, job_id=case.job_id, stage="quarantine")
    notify(slot.hooks, stage)
    report = refuse_case(case, outcome, slot.resources)
    return _conclude_report(slot, case, CaseRun(report=report), attempt)


def conclude_bug(slot: WorkerSlot, delivery: Delivery, error: Exception) -> Conclusion:
    """Retry a job that met a bug outside its case.

    After the last attempt the message is dead-lettered.
    """
    code, met = code_of(error), _count_bug(slot, delivery.body)
    _report_failure(slot, "", met, code)
    if met >= slot.rule.max_attempts:
        return Conclusion(settlement=Reject(code))
    return Conclusion(settlement=Retry(slot.rule.delay_after(met)))


def settle(slot: WorkerSlot, delivery: Delivery, conclusion: Conclusion, seconds: float) -> None:
    """Settle a delivery and announce the end of its job.

    Args:
        slot: has received the delivery.
        delivery: what is settled.
        conclusion: how it is settled.
        seconds: time since it was received.
    """
    report, settlement = conclusion.report, conclusion.settlement
    notify(
        slot.hooks, JobEvent(kind=Progress.STAGE_BEGUN, job_id=conclusion.job_id, stage="settle")
    )
    try:
        in_time = slot.broker.settle(delivery, settlement)
    except TransientError:
        in_time = False
    event = JobEvent(
        kind=Progress.SETTLED,
        job_id=conclusion.job_id,
        settlement=type(settlement).__name__,
        outcome=outcome_of(settlement, report, repeated=conclusion.repeated),
        report=report,
        seconds=seconds,
        late=not in_time,
    )
    notify(slot.hooks, event)
    if isinstance(settlement, Ack) and report is not None and report.state is not State.SUPERSEDED:
        try:
            slot.broker.announce(_announcement(report))
        except CtDefaceError:
            # Only a hint; the report is the truth.
            _log.warning("event_not_sent", worker=slot.name, job_id=report.job_id)


def _conclude_report(
    slot: WorkerSlot, case: CaseInput, run: CaseRun, attempt: Attempt
) -> Conclusion:
    """Acknowledge a case that has ended, and remove what is left of it in `taken`.

    A case that is visible but not done is retried.
    """
    report = run.report
    if report.state is State.PUBLISHED:
        settlement = Retry(slot.rule.delay_after(attempt.number))
        return Conclusion(settlement=settlement, job_id=report.job_id)
    taken_case(slot.spool, case.taken).remove()
    return Conclusion(settlement=Ack(), job_id=report.job_id, report=report, repeated=run.had_ended)


def _begin_attempt(slot: WorkerSlot, case: CaseInput, attempt: Attempt) -> None:
    """Check that an attempt is allowed and count it on disk.

    Raises:
        WorkerCrashed: all allowed attempts were begun and died with their worker.
        InputChanged: the files of the case are gone.
        StorageUnavailable: the attempt cannot be recorded.
    """
    if attempt.number > slot.rule.max_attempts:
        raise WorkerCrashed(f"{attempt.number - 1} attempts ended together with their worker")
    attempt.begin()
    if not case.source.is_dir():
        raise InputChanged("the files of the case are gone: drop the case again")
    event = JobEvent(kind=Progress.ATTEMPT_BEGUN, job_id=case.job_id, attempt=attempt.number)
    notify(slot.hooks, event)


def _count_bug(slot: WorkerSlot, body: bytes) -> int:
    """Return how often a message has met a bug in this slot, this time included."""
    digest = hashlib.sha256(body).hexdigest()
    met = slot.bugs[digest] = slot.bugs.pop(digest, 0) + 1
    if len(slot.bugs) > _REMEMBERED_BUGS:
        del slot.bugs[next(iter(slot.bugs))]
    return met


def _report_failure(slot: WorkerSlot, job_id: str, attempt: int, code: str) -> None:
    """Log and count a delivery without a recorded end."""
    _log.error("job_not_concluded", worker=slot.name, attempt=attempt, code=code)
    event = JobEvent(kind=Progress.ATTEMPT_FAILED, job_id=job_id, attempt=attempt, code=code)
    notify(slot.hooks, event)


def _announcement(report: CaseReport) -> CaseEvent:
    return CaseEvent(
        kind=EventKind.RELEASED if report.is_published else EventKind.REFUSED,
        job_id=report.job_id,
        code=report.result.code or None,
        finished_at=datetime.now(UTC),
    )
