"""The worker: takes one job after the other from the queue and brings each to its end; the only module that knows queue and pipeline.

receive → decode → already done? → record the attempt → warm child, while the queue is tended →
publish or quarantine → settle → announce
"""

import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
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
    ConfigurationError,
    CtDefaceError,
    EscapingPath,
    InputChanged,
    StorageUnavailable,
)
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.messages import CaseEvent, DefaceJob, EventKind, decode_job
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_worker.case.child_process import UnexpectedError, WorkerCrashed
from ctdeface_worker.case.run import CaseResources, attempt, case_input
from ctdeface_worker.publishing import originals
from ctdeface_worker.publishing.audit_entry import UNSEEN
from ctdeface_worker.publishing.journal import find_report
from ctdeface_worker.publishing.outbox import holds
from ctdeface_worker.publishing.quarantine import refuse
from ctdeface_worker.report.model import CaseReport, State, failed
from ctdeface_worker.service.attempts import JobInProgress, claimed
from ctdeface_worker.service.observer import NO_OBSERVER, Observer, outcome_of

RECEIVE_SECONDS = 2.0
TEND_SECONDS = 0.5
PAUSE_SECONDS = 5.0

_log = logs.logger(__name__)


class Stopped(CtDefaceError):
    """The worker is stopping; the job goes back to the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSlot:
    """Everything one slot of a worker needs; each slot has a broker and a child of its own.

    Attributes:
        name: for logs.
        broker: the queue.
        bench: what cases are worked on with.
        spool: where everything lies; the same as the bench's.
        originals: what happens to dropped files.
        rule: how often a job is tried.
        stop: set when the worker shall end.
        listener: hears what happens to each job.
    """

    name: str
    broker: Broker
    resources: CaseResources
    spool: ServiceSpool
    originals: Originals
    rule: RetryRule
    stop: threading.Event
    observer: Observer = NO_OBSERVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What follows from a delivery: how it is settled, the report and the job's name where there are, and whether it was over before."""

    settlement: Settlement
    report: CaseReport | None = None
    repeated: bool = False
    job_id: str | None = None


def serve(slot: WorkerSlot) -> None:
    """Take jobs until stopped. Whatever goes wrong with one costs that job only.

    Raises:
        ConfigurationError: the queue does not let this worker in; that does not pass by itself.
    """
    try:
        while not slot.stop.is_set():
            if isinstance(
                boundary(
                    partial(slot.spool.check_free_space, slot.resources.settings.output.min_free_gb)
                ),
                Exception,
            ):
                _log.warning("paused_for_disk_space", worker=slot.name)
                slot.broker.tend(PAUSE_SECONDS)
                continue
            delivery = boundary(partial(slot.broker.receive, RECEIVE_SECONDS))
            if isinstance(delivery, ConfigurationError):
                raise delivery
            if isinstance(delivery, Exception):
                _log.warning("queue_not_reachable", worker=slot.name)
            elif delivery is not None:
                _bring_to_its_end(slot, delivery)
    finally:
        slot.resources.child.close()
        slot.broker.close()


def _bring_to_its_end(slot: WorkerSlot, delivery: Delivery) -> None:
    """Handle one delivery, settle it, and announce how the job ended."""
    begun = monotonic()
    slot.observer.taken(delivery)
    ending = handle(slot, delivery)
    slot.observer.staged("settle")
    settled = boundary(partial(slot.broker.settle, delivery, ending.settlement))
    report = ending.report
    _log.info(
        "job_settled",
        worker=slot.name,
        code=type(ending.settlement).__name__ if settled is True else "TooLate",
        job_id=ending.job_id,
        seconds=round(monotonic() - begun, 3),
    )
    if settled is not True:
        slot.observer.late()
    slot.observer.ended(
        outcome_of(ending.settlement, report, repeated=ending.repeated), report, monotonic() - begun
    )
    if (
        isinstance(ending.settlement, Ack)
        and report is not None
        and report.state is not State.SUPERSEDED
    ):
        boundary(
            partial(slot.broker.announce, _event(report))
        )  # a hint: whoever missed it reads the report


def handle(slot: WorkerSlot, delivery: Delivery) -> Conclusion:
    """Bring one delivery to its end, whatever happens on the way."""
    job = boundary(partial(decode_job, delivery.body))
    if isinstance(job, Exception):
        decision = decide(job, delivery.attempt, slot.rule)
        return Conclusion(
            settlement=decision if isinstance(decision, Reject) else Reject(type(job).__name__)
        )
    with logs.about_job(job.job_id):
        ending = boundary(partial(_work_on, slot, job, delivery))
        return replace(
            ending if isinstance(ending, Conclusion) else _unrecorded(slot, ending, delivery),
            job_id=job.job_id,
        )


def _unrecorded(slot: WorkerSlot, error: Exception, delivery: Delivery) -> Conclusion:
    """Settle a job that came to no recorded end: while storage fails it waits without losing an attempt, a bug is bounded."""
    _log.error("job_not_concluded", worker=slot.name, attempt=delivery.attempt, code=code_of(error))
    slot.observer.failed(code_of(error))
    if isinstance(error, OSError | StorageUnavailable):
        return Conclusion(
            settlement=Retry(slot.rule.delay_after(delivery.attempt), delivery.attempt - 1)
        )
    if delivery.attempt < slot.rule.max_attempts:
        return Conclusion(
            settlement=Retry(slot.rule.delay_after(delivery.attempt), delivery.attempt)
        )
    return Conclusion(settlement=Reject(code_of(error)))


def _work_on(slot: WorkerSlot, job: DefaceJob, delivery: Delivery) -> Conclusion:
    try:
        with claimed(slot.spool.locks, job.job_id):
            return _work_alone(slot, job, delivery)
    except (
        JobInProgress
    ):  # delivered twice, after a late ack or a broken connection: wait and see what becomes of it
        return Conclusion(settlement=Retry(slot.rule.delay_after(1), delivery.attempt - 1))


def _work_alone(slot: WorkerSlot, job: DefaceJob, delivery: Delivery) -> Conclusion:
    ended = boundary(partial(_had_ended, slot.spool, job)) is True
    outcome = boundary(partial(_settled_before, slot, job))
    folder = case_path(slot.spool.reports, job.case) / job.job_id
    number, repeated = delivery.attempt, isinstance(outcome, CaseReport)
    if outcome is None:
        begun = attempt_log.read(folder).count
        number = max(delivery.attempt - 1, begun) + 1
        _log.info("attempt_begun", worker=slot.name, attempt=number)
        slot.observer.attempted(job.job_id, number)
        outcome = boundary(partial(_attempt, slot, job, folder, number))
        if isinstance(outcome, Stopped):
            boundary(partial(attempt_log.hand_back, folder))
            return Conclusion(settlement=Requeue())
        if isinstance(outcome, StorageUnavailable) and attempt_log.read(folder).count > begun:
            boundary(partial(attempt_log.hand_back, folder))
    conclusion = replace(_conclude(slot, job, outcome, number), repeated=ended and repeated)
    if isinstance(outcome, Exception) and isinstance(conclusion.settlement, Retry):
        _note_failure(folder, outcome)
    return conclusion


def _note_failure(folder: Path, error: Exception) -> None:
    """Record for `ctdeface status` why an attempt will be repeated."""
    with suppress(OSError):  # the record is of use to people only
        if attempt_log.read(folder).is_open:
            attempt_log.fail(folder, code_of(error))


def _had_ended(spool: ServiceSpool, job: DefaceJob) -> bool:
    """Whether a job is over, its case visible in outbox or quarantine, before this delivery is looked at."""
    report = find_report(spool, job.case, job.job_id)
    if report is not None and report.state is State.REFUSED:
        return (case_path(spool.quarantine, job.case) / job.job_id).is_dir()
    return report is not None and report.state in {State.DONE, State.SUPERSEDED}


def _settled_before(slot: WorkerSlot, job: DefaceJob) -> CaseReport | None:
    """Finish a job that an earlier delivery had brought far enough; None when it must be worked on."""
    spool = slot.spool
    report = find_report(spool, job.case, job.job_id)
    if report is None:
        return None
    if report.created_at >= (case_input(spool, job).submitted_at or ""):
        if report.state in {State.REFUSED, State.DONE}:
            return report  # done is done, also when somebody has taken the output away since
    elif report.state is not State.PREPARED and not holds(
        case_path(spool.outbox, report.case), report
    ):
        return None  # dropped again, and nothing of what became of it earlier is to be seen
    with atomic.storage_errors():
        final = slot.resources.resume(spool, report, slot.resources.rules)
        if final is not None and final.state is State.DONE:
            originals.archive(spool, final, slot.originals)  # those of a repeated drop as well
        return final


def _attempt(slot: WorkerSlot, job: DefaceJob, folder: Path, number: int) -> CaseReport:
    """Work on the job once, in a thread, while this one keeps the delivery alive.

    Raises:
        CtDefaceError: why this attempt failed.
        Stopped: the grace period is over.
    """
    if number > slot.rule.max_attempts:
        raise WorkerCrashed(f"{number - 1} attempts ended together with their worker")
    order = case_input(slot.spool, job)
    _check_source(slot.spool, order.source)
    with atomic.storage_errors():
        attempt_log.begin(folder)
    done: Future[CaseReport] = Future()

    def begun(stage: str) -> None:
        _log.info("stage_begun", job_id=job.job_id, stage=stage)
        slot.observer.staged(stage)

    def run() -> None:
        outcome = boundary(partial(attempt, order, slot.resources, begun))
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

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
    if deadline is not None and monotonic() >= deadline and done.exception() is not None:
        raise Stopped("the worker was stopped")
    return done.result()


def _check_source(spool: ServiceSpool, source: Path) -> None:
    """Check that a job's case is a folder of the inbox.

    Raises:
        EscapingPath: a link leads out of the inbox.
        InputChanged: the case is no longer there.
    """
    if source.is_symlink() or not source.resolve().is_relative_to(spool.inbox.resolve()):
        raise EscapingPath("the case is a link that leads out of the inbox")
    if not source.is_dir():
        raise InputChanged("the case is no longer in the inbox")


def _conclude(
    slot: WorkerSlot, job: DefaceJob, outcome: CaseReport | Exception, number: int
) -> Conclusion:
    """Turn an outcome into its consequences: the quarantine for what is refused, another attempt for what may pass."""
    if isinstance(outcome, CaseReport):
        report = outcome
    else:
        known = (
            outcome
            if isinstance(outcome, CtDefaceError)
            else UnexpectedError(f"{type(outcome).__name__}: {outcome}")
        )
        decision = decide(known, number, slot.rule)
        _log.warning("attempt_failed", worker=slot.name, attempt=number, code=known.code)
        slot.observer.failed(known.code)
        if isinstance(
            known, StorageUnavailable
        ):  # no fault of the case: it waits as long as it takes
            return Conclusion(settlement=Retry(slot.rule.delay_after(number), number - 1))
        if not isinstance(decision, Quarantine):
            return Conclusion(settlement=decision)
        report = case_input(slot.spool, job).report(failed(known))
    if report.state is State.REFUSED:
        slot.observer.staged("quarantine")
        report = refuse(
            slot.spool,
            report,
            slot.originals,
            stale_seconds=slot.resources.rules.stale_seconds,
        )
        if (
            report.state is State.PUBLISHED
        ):  # visible but not done, so neither refused nor over: finished by a later delivery
            return Conclusion(settlement=Retry(slot.rule.delay_after(number), number - 1))
    elif report.state is State.SUPERSEDED:
        rule = (
            Originals.ARCHIVE if slot.originals is Originals.DELETE else slot.originals
        )  # nothing was released of them
        originals.archive(slot.spool, report, rule)
    if report.state in UNSEEN:
        slot.resources.attest(report)
    return Conclusion(settlement=Ack(), report=report)


def _event(report: CaseReport) -> CaseEvent:
    released = report.is_published
    return CaseEvent(
        kind=EventKind.RELEASED if released else EventKind.REFUSED,
        job_id=report.job_id,
        code=report.result.code or None,
        finished_at=datetime.now(UTC),
    )
