"""What a worker tells about its jobs while it works, to whoever counts; it knows nobody who does."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ParamSpec

from ctdeface_shared.broker.protocols import Delivery
from ctdeface_shared.broker.settlement import Ack, Reject, Requeue, Settlement
from ctdeface_worker.report.model import CaseReport, State

Given = ParamSpec("Given")


class Outcome(StrEnum):
    """What became of a delivery."""

    RELEASED = "released"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    """A newer job of the case was published before this one ended."""
    REPEATED = "repeated"
    """The job had ended before; it was delivered again and nothing was done."""
    RETRIED = "retried"
    """It goes back to the queue for another attempt."""
    HANDED_BACK = "handed_back"
    """The worker was stopped; the attempt does not count."""
    BURIED = "buried"
    """A message without a case, or one that could not even be recorded: dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Callbacks that never raise; nobody listens unless they are given.

    Attributes:
        taken: a job was taken from the queue.
        attempted: an attempt begins: job and number.
        staged: a stage begins, of the attempt or of what follows from it.
        failed: an attempt failed, with the code of its error.
        ended: a delivery came to its end: what became of it, its report where it has one, and
            seconds since it was taken.
        late: the queue had given a delivery to somebody else before it was settled.
    """

    taken: Callable[[Delivery], None] = lambda _delivery: None
    attempted: Callable[[str, int], None] = lambda _job_id, _number: None
    staged: Callable[[str], None] = lambda _stage: None
    failed: Callable[[str], None] = lambda _code: None
    ended: Callable[[Outcome, CaseReport | None, float], None] = (
        lambda _outcome, _report, _seconds: None
    )
    late: Callable[[], None] = lambda: None


NO_OBSERVER = Observer()


def both(first: Observer, second: Observer) -> Observer:
    """Return a listener that tells two, one after the other."""

    def to_both(one: Callable[Given, None], other: Callable[Given, None]) -> Callable[Given, None]:
        def call(*args: Given.args, **named: Given.kwargs) -> None:
            one(*args, **named)
            other(*args, **named)

        return call

    return Observer(
        taken=to_both(first.taken, second.taken),
        attempted=to_both(first.attempted, second.attempted),
        staged=to_both(first.staged, second.staged),
        failed=to_both(first.failed, second.failed),
        ended=to_both(first.ended, second.ended),
        late=to_both(first.late, second.late),
    )


def outcome_of(settlement: Settlement, report: CaseReport | None, *, repeated: bool) -> Outcome:
    """Say what became of a delivery.

    Args:
        settlement: how it is settled.
        report: of the job, where there is one.
        repeated: whether the job had ended before.
    """
    if isinstance(settlement, Reject):
        return Outcome.BURIED
    if isinstance(settlement, Requeue):
        return Outcome.HANDED_BACK
    if not isinstance(settlement, Ack) or report is None:
        return Outcome.RETRIED
    if repeated:
        return Outcome.REPEATED
    return {State.REFUSED: Outcome.REFUSED, State.SUPERSEDED: Outcome.SUPERSEDED}.get(
        report.state, Outcome.RELEASED
    )
