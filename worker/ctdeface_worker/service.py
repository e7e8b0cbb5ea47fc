"""The worker: takes one job after the other from the queue and brings each to its end; the only module that knows queue and pipeline.

receive → decode → already done? → record the attempt → warm child, while the queue is tended → publish or quarantine → settle → announce
"""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic

from ctdeface_shared import durable, logs
from ctdeface_shared.broker.protocols import Broker, Delivery
from ctdeface_shared.broker.settlement import Ack, Bury, HandBack, Quarantine, Retry, RetryRule, Settlement, code_of, decide
from ctdeface_shared.errors import ConfigurationError, CtDefaceError, EscapingPath, InputChanged, StorageUnavailable
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.messages import CaseEvent, DefaceJob, EventKind, decode_job
from ctdeface_shared.options import Originals
from ctdeface_shared.spool import ServiceSpool, case_path
from ctdeface_worker import originals, tries
from ctdeface_worker.attempt import Bench, attempt, ordered
from ctdeface_worker.attestation import UNSEEN
from ctdeface_worker.executor import UnexpectedError, WorkerCrashed
from ctdeface_worker.journal import find_report
from ctdeface_worker.listener import NOBODY, Listener, outcome_of
from ctdeface_worker.outbox import holds
from ctdeface_worker.refusal import refuse
from ctdeface_worker.report.model import CaseReport, State, failed
from ctdeface_worker.tries import JobTaken

RECEIVE_SECONDS = 2.0
TEND_SECONDS = 0.5
PAUSE_SECONDS = 5.0

_log = logs.logger(__name__)


class Stopped(CtDefaceError):
    """The worker is stopping; the job goes back to the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
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
    bench: Bench
    spool: ServiceSpool
    originals: Originals
    rule: RetryRule
    stop: threading.Event
    listener: Listener = NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What follows from a delivery: how it is settled, the report and the job's name where there are, and whether it was over before."""

    settlement: Settlement
    report: CaseReport | None = None
    repeated: bool = False
    job_id: str | None = None


def serve(station: Station) -> None:
    """Take jobs until stopped. Whatever goes wrong with one costs that job only.

    Raises:
        ConfigurationError: the queue does not let this worker in; that does not pass by itself.
    """
    try:
        while not station.stop.is_set():
            if isinstance(boundary(partial(station.spool.check_free_space, station.bench.settings.output.min_free_gb)), Exception):
                _log.warning("paused_for_disk_space", worker=station.name)
                station.broker.tend(PAUSE_SECONDS)
                continue
            delivery = boundary(partial(station.broker.receive, RECEIVE_SECONDS))
            if isinstance(delivery, ConfigurationError):
                raise delivery
            if isinstance(delivery, Exception):
                _log.warning("queue_not_reachable", worker=station.name)
            elif delivery is not None:
                _bring_to_its_end(station, delivery)
    finally:
        station.bench.child.close()
        station.broker.close()


def _bring_to_its_end(station: Station, delivery: Delivery) -> None:
    """Handle one delivery, settle it, and announce how the job ended."""
    begun = monotonic()
    station.listener.taken(delivery)
    ending = handle(station, delivery)
    station.listener.staged("settle")
    settled = boundary(partial(station.broker.settle, delivery, ending.settlement))
    report = ending.report
    _log.info(
        "job_settled",
        worker=station.name,
        code=type(ending.settlement).__name__ if settled is True else "TooLate",
        job_id=ending.job_id,
        seconds=round(monotonic() - begun, 3),
    )
    if settled is not True:
        station.listener.late()
    station.listener.ended(outcome_of(ending.settlement, report, repeated=ending.repeated), report, monotonic() - begun)
    if isinstance(ending.settlement, Ack) and report is not None and report.state is not State.SUPERSEDED:
        boundary(partial(station.broker.announce, _event(report)))  # a hint: whoever missed it reads the report


def handle(station: Station, delivery: Delivery) -> Ending:
    """Bring one delivery to its end, whatever happens on the way."""
    job = boundary(partial(decode_job, delivery.body))
    if isinstance(job, Exception):
        decision = decide(job, delivery.attempt, station.rule)
        return Ending(settlement=decision if isinstance(decision, Bury) else Bury(type(job).__name__))
    with logs.about_job(job.job_id):
        ending = boundary(partial(_work_on, station, job, delivery))
        return replace(ending if isinstance(ending, Ending) else _unrecorded(station, ending, delivery), job_id=job.job_id)


def _unrecorded(station: Station, error: Exception, delivery: Delivery) -> Ending:
    """Settle a job that came to no recorded end: while storage fails it waits without losing an attempt, a bug is bounded."""
    _log.error("job_not_concluded", worker=station.name, attempt=delivery.attempt, code=code_of(error))
    station.listener.failed(code_of(error))
    if isinstance(error, OSError | StorageUnavailable):
        return Ending(settlement=Retry(station.rule.delay_after(delivery.attempt), delivery.attempt - 1))
    if delivery.attempt < station.rule.max_attempts:
        return Ending(settlement=Retry(station.rule.delay_after(delivery.attempt), delivery.attempt))
    return Ending(settlement=Bury(code_of(error)))


def _work_on(station: Station, job: DefaceJob, delivery: Delivery) -> Ending:
    try:
        with tries.claimed(station.spool.locks, job.job_id):
            return _work_alone(station, job, delivery)
    except JobTaken:  # delivered twice, after a late ack or a broken connection: wait and see what becomes of it
        return Ending(settlement=Retry(station.rule.delay_after(1), delivery.attempt - 1))


def _work_alone(station: Station, job: DefaceJob, delivery: Delivery) -> Ending:
    ended = boundary(partial(_had_ended, station.spool, job)) is True
    outcome = boundary(partial(_settled_before, station, job))
    number, repeated = delivery.attempt, isinstance(outcome, CaseReport)
    if outcome is None:
        folder = case_path(station.spool.reports, job.case) / job.job_id
        begun = tries.begun(folder)
        number = max(delivery.attempt - 1, begun) + 1
        _log.info("attempt_begun", worker=station.name, attempt=number)
        station.listener.attempted(job.job_id, number)
        outcome = boundary(partial(_attempt, station, job, folder, number))
        if isinstance(outcome, Stopped):
            boundary(partial(tries.hand_back, folder))
            return Ending(settlement=HandBack())
        if isinstance(outcome, StorageUnavailable) and tries.begun(folder) > begun:
            boundary(partial(tries.hand_back, folder))
    return replace(_conclude(station, job, outcome, number), repeated=ended and repeated)


def _had_ended(spool: ServiceSpool, job: DefaceJob) -> bool:
    """Whether a job is over, its case visible in outbox or quarantine, before this delivery is looked at."""
    report = find_report(spool, job.case, job.job_id)
    if report is not None and report.state is State.REFUSED:
        return (case_path(spool.quarantine, job.case) / job.job_id).is_dir()
    return report is not None and report.state in {State.DONE, State.SUPERSEDED}


def _settled_before(station: Station, job: DefaceJob) -> CaseReport | None:
    """Finish a job that an earlier delivery had brought far enough; None when it must be worked on."""
    spool = station.spool
    report = find_report(spool, job.case, job.job_id)
    if report is None:
        return None
    if report.created_at >= (ordered(spool, job).submitted_at or ""):
        if report.state in {State.REFUSED, State.DONE}:
            return report  # done is done, also when somebody has taken the output away since
    elif report.state is not State.PREPARED and not holds(case_path(spool.outbox, report.case), report):
        return None  # dropped again, and nothing of what became of it earlier is to be seen
    with durable.storage_errors():
        final = station.bench.resume(spool, report, station.bench.rules)
        if final is not None and final.state is State.DONE:
            originals.archive(spool, final, station.originals)  # those of a repeated drop as well
        return final


def _attempt(station: Station, job: DefaceJob, folder: Path, number: int) -> CaseReport:
    """Work on the job once, in a thread, while this one keeps the delivery alive.

    Raises:
        CtDefaceError: why this attempt failed.
        Stopped: the grace period is over.
    """
    if number > station.rule.max_attempts:
        message = f"{number - 1} attempts ended together with their worker"
        raise WorkerCrashed(message)
    order = ordered(station.spool, job)
    _check_source(station.spool, order.source)
    with durable.storage_errors():
        tries.begin(folder)
    done: Future[CaseReport] = Future()

    def begun(stage: str) -> None:
        _log.info("stage_begun", job_id=job.job_id, stage=stage)
        station.listener.staged(stage)

    def run() -> None:
        outcome = boundary(partial(attempt, order, station.bench, begun))
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

    thread = threading.Thread(target=run, name=f"{station.name}-case", daemon=True)
    thread.start()
    deadline: float | None = None
    while not done.done():
        station.broker.tend(TEND_SECONDS)
        if station.stop.is_set():
            deadline = deadline or monotonic() + station.bench.settings.work.grace_period
            if monotonic() >= deadline:
                station.bench.child.interrupt()
                thread.join()
                break
    if deadline is not None and monotonic() >= deadline and done.exception() is not None:
        message = "the worker was stopped"
        raise Stopped(message)
    return done.result()


def _check_source(spool: ServiceSpool, source: Path) -> None:
    """Check that a job's case is a folder of the inbox.

    Raises:
        EscapingPath: a link leads out of the inbox.
        InputChanged: the case is no longer there.
    """
    if source.is_symlink() or not source.resolve().is_relative_to(spool.inbox.resolve()):
        message = "the case is a link that leads out of the inbox"
        raise EscapingPath(message)
    if not source.is_dir():
        message = "the case is no longer in the inbox"
        raise InputChanged(message)


def _conclude(station: Station, job: DefaceJob, outcome: CaseReport | Exception, number: int) -> Ending:
    """Turn an outcome into its consequences: the quarantine for what is refused, another attempt for what may pass."""
    if isinstance(outcome, CaseReport):
        report = outcome
    else:
        known = outcome if isinstance(outcome, CtDefaceError) else UnexpectedError(f"{type(outcome).__name__}: {outcome}")
        decision = decide(known, number, station.rule)
        _log.warning("attempt_failed", worker=station.name, attempt=number, code=known.code)
        station.listener.failed(known.code)
        if isinstance(known, StorageUnavailable):  # no fault of the case: it waits as long as it takes
            return Ending(settlement=Retry(station.rule.delay_after(number), number - 1))
        if not isinstance(decision, Quarantine):
            return Ending(settlement=decision)
        report = ordered(station.spool, job).report(failed(known))
    if report.state is State.REFUSED:
        station.listener.staged("quarantine")
        report = refuse(station.spool, report, station.originals, stale_seconds=station.bench.rules.stale_seconds)
        if report.state is State.PUBLISHED:  # visible but not done, so neither refused nor over: finished by a later delivery
            return Ending(settlement=Retry(station.rule.delay_after(number), number - 1))
    elif report.state is State.SUPERSEDED:
        rule = Originals.ARCHIVE if station.originals is Originals.DELETE else station.originals  # nothing was released of them
        originals.archive(station.spool, report, rule)
    if report.state in UNSEEN:
        station.bench.attest(report)
    return Ending(settlement=Ack(), report=report)


def _event(report: CaseReport) -> CaseEvent:
    released = report.is_published
    return CaseEvent(
        kind=EventKind.RELEASED if released else EventKind.REFUSED,
        job_id=report.job_id,
        code=report.result.code or None,
        finished_at=datetime.now(UTC),
    )
