"""What becomes of a delivered job: a pure rule from its outcome and its attempts to one of a few values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ctdeface_shared.errors import CtDefaceError, EscapingPath, InvalidMessage, PermanentError


@dataclass(frozen=True, slots=True)
class Ack:
    """The job is over and recorded; the queue forgets it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The job is delivered again after a pause, as the next attempt.

    Attributes:
        delay_seconds: one of the configured delays.
        attempt: the attempt that just failed, as the caller counts; None lets the queue's own count
            stand.
    """

    delay_seconds: float
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Requeue:
    """The job goes back at once and this attempt does not count: the worker is stopping."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The message goes to the dead letters: there is no case to record an outcome for.

    Attributes:
        code: code of the error.
    """

    code: str


Settlement: TypeAlias = Ack | Retry | Requeue | Reject
"""What a queue can do with a delivery."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The case is put into quarantine with a report by the caller, who then settles with `Ack`.

    Attributes:
        code: code of the error.
    """

    code: str


Decision: TypeAlias = Ack | Retry | Reject | Quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """How often and when a job is tried again.

    Attributes:
        max_attempts: attempts in all, 1 or more.
        delays_seconds: pause after the first, second, … attempt; the last one stays.
    """

    DEFAULT_DELAYS: ClassVar[tuple[float, ...]] = (30.0, 120.0, 600.0)

    max_attempts: int = 4
    delays_seconds: Sequence[float] = DEFAULT_DELAYS

    def delay_after(self, attempt: int) -> float:
        """Pause in seconds after this attempt, counted from 1."""
        return self.delays_seconds[min(max(attempt, 1), len(self.delays_seconds)) - 1]


def decide(error: BaseException | None, attempt: int, rule: RetryRule) -> Decision:
    """Decide what follows from the outcome of an attempt.

    Args:
        error: None for a job that ended as it should (released, or already done).
        attempt: which attempt this was, counted from 1 over all places where attempts are recorded.
        rule: how often and when to try again.

    Returns:
        Ack after success. Reject for a message that names no case we could record. Quarantine for a
        permanent error and for any other one after the last attempt, bugs and wrong settings
        included. Else Retry.
    """
    if error is None:
        return Ack()
    code = code_of(error)
    if isinstance(error, InvalidMessage | EscapingPath):
        return Reject(code)
    if isinstance(error, PermanentError) or attempt >= rule.max_attempts:
        return Quarantine(code)
    return Retry(rule.delay_after(attempt), attempt)


def code_of(error: BaseException) -> str:
    """Stable code of an error; a bug is named by its class."""
    return error.code if isinstance(error, CtDefaceError) else type(error).__name__
