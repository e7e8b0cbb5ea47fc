"""Progress events of a job for metrics, traces and logs."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ctdeface_shared.broker.settlement import Ack, Reject, Requeue, Settlement
from ctdeface_worker.report.model import CaseReport, State


class Outcome(StrEnum):
    """Outcome of a delivery."""

    RELEASED = "released"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    """A newer job of the case was published before this one ended."""
    REPEATED = "repeated"
    """Nothing was done: the job had ended before, or another one has taken its place."""
    RETRIED = "retried"
    """The job goes back to the queue for another attempt."""
    HANDED_BACK = "handed_back"
    """The worker was stopped; the attempt does not count."""
    BURIED = "buried"
    """The message went to the dead letters: it names no case, or the end could not be recorded."""


class Progress(StrEnum):
    """Kind of a progress event, with the values it carries."""

    RECEIVED = "received"
    """A delivery was taken from the queue: traceparent."""
    ATTEMPT_BEGUN = "attempt_begun"
    """An attempt at the case begins: job_id, attempt."""
    STAGE_BEGUN = "stage_begun"
    """A stage of the attempt, or of what follows from it, begins: job_id, stage."""
    ATTEMPT_FAILED = "attempt_failed"
    """An attempt failed: job_id, attempt, code."""
    SETTLED = "settled"
    """A delivery was settled: settlement, outcome, report, seconds, late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One step of a job.

    Attributes:
        kind: the step.
        job_id: identity of the job; empty when the message is not a job.
        traceparent: trace of the message, if it has one.
        attempt: number of the attempt, from 1.
        stage: name of the stage.
        code: code of the error.
        settlement: class name of the settlement.
        outcome: outcome of the delivery.
        report: report of the job, if it has one.
        seconds: time since the delivery was received.
        late: whether the queue had given the delivery to another worker before it was settled.
    """

    kind: Progress
    job_id: str = ""
    traceparent: str | None = None
    attempt: int = 0
    stage: str = ""
    code: str = ""
    settlement: str = ""
    outcome: Outcome | None = None
    report: CaseReport | None = None
    seconds: float = 0.0
    late: bool = False


Hook: TypeAlias = Callable[[JobEvent], None]


def outcome_of(settlement: Settlement, report: CaseReport | None, *, repeated: bool) -> Outcome:
    """Return the outcome of a delivery.

    Args:
        settlement: how the delivery is settled.
        report: report of the job, if it has one.
        repeated: whether nothing was done.
    """
    if isinstance(settlement, Reject):
        return Outcome.BURIED
    if isinstance(settlement, Requeue):
        return Outcome.HANDED_BACK
    if not isinstance(settlement, Ack):
        return Outcome.RETRIED
    if repeated or report is None:
        return Outcome.REPEATED
    return {State.REFUSED: Outcome.REFUSED, State.SUPERSEDED: Outcome.SUPERSEDED}.get(
        report.state, Outcome.RELEASED
    )
