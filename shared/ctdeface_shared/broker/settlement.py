"""The rule that settles a delivered job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ctdeface_shared.errors import CtDefaceError, EscapingPath, InvalidMessage, PermanentError


@dataclass(frozen=True, slots=True)
class Ack:
    """Remove the job from the queue: its end is recorded."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Deliver the job again after a delay.

    The queue's own count begins again. Attempts are counted in the job's report folder, because the
    sender of a message could write any count into it.

    Attributes:
        delay_seconds: one of the configured delays.
    """

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Requeue:
    """Return the job immediately without counting the attempt.

    A worker that is stopping does this.
    """


@dataclass(frozen=True, slots=True)
class Reject:
    """Dead-letter the message, because it names no recordable case.

    Attributes:
        code: code of the error.
    """

    code: str


Settlement: TypeAlias = Ack | Retry | Requeue | Reject
"""The ways to settle a delivery."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Quarantine the case with a report, then settle with `Ack`.

    Attributes:
        code: code of the error.
    """

    code: str


Decision: TypeAlias = Ack | Retry | Reject | Quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """The number of attempts and the delays between them.

    Attributes:
        max_attempts: attempts in all, at least 1.
        delays_seconds: delay after the first, second, … attempt; the last one is repeated.
    """

    DEFAULT_DELAYS: ClassVar[tuple[float, ...]] = (30.0, 120.0, 600.0)

    max_attempts: int = 4
    delays_seconds: Sequence[float] = DEFAULT_DELAYS

    def delay_after(self, attempt: int) -> float:
        """Return the delay in seconds after this attempt, from 1."""
        return self.delays_seconds[min(max(attempt, 1), len(self.delays_seconds)) - 1]


def decide(error: BaseException | None, attempt: int, rule: RetryRule) -> Decision:
    """Decide how an attempt is settled.

    Args:
        error: None for a job that succeeded (released, or already done).
        attempt: number of the attempt, counted from 1 over all places where attempts are recorded.
        rule: attempts and delays.

    Returns:
        Ack after success. Reject for a message without a case that could be recorded. Quarantine
        for a permanent error, and for any other error after the last attempt, including bugs and
        wrong settings. Otherwise Retry.
    """
    if error is None:
        return Ack()
    code = code_of(error)
    if isinstance(error, InvalidMessage | EscapingPath):
        return Reject(code)
    if isinstance(error, PermanentError) or attempt >= rule.max_attempts:
        return Quarantine(code)
    return Retry(rule.delay_after(attempt))


def code_of(error: BaseException) -> str:
    """Return an error's stable code, or the class of a bug."""
    return error.code if isinstance(error, CtDefaceError) else type(error).__name__
