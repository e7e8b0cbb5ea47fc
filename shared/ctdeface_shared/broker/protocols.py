"""What watcher and worker ask of a queue, whichever it is.

A broker object belongs to one thread, holds at most one unsettled delivery, and reconnects by
itself. What it promises:

- `publish` returns when the job is safe on the queue's disk. A job may be delivered more than once;
  it is never lost.
- A delivery that is not settled (its process died, its connection broke, its lease ran out) is
  delivered again.
- A settlement that comes too late changes nothing: the job is delivered again, and the publishing
  journal makes that harmless.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ctdeface_shared.broker.settlement import Settlement
from ctdeface_shared.jobs.messages import CaseEvent, DefaceJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A job as it came from the queue, not yet looked into: `messages.decode_job(delivery.body)` may refuse it.

    Attributes:
        tag: the queue's own name for this delivery.
        body: the message.
        attempt: which attempt this would be, by the queue's count alone, from 1.
        traceparent: which trace the sender had begun; None where it told of none.
    """

    tag: str
    body: bytes
    attempt: int = 1
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How many jobs lie where; None is what this queue cannot tell.

    Attributes:
        ready: waiting for a worker.
        held: delivered and not settled.
        delayed: waiting for their next attempt.
        dead: dead letters.
    """

    ready: int
    held: int | None
    delayed: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up, with the reason.

    Attributes:
        tag: names it for `Broker.requeue`.
        body: the message as it came.
        code: code of the error, or what the queue says about it.
    """

    tag: str
    body: bytes
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is there and what is not.

    Attributes:
        server: kind and version.
        present: what is as it should be.
        wrong: one sentence for each thing that is missing or different, with what to do.
        not_seen: what matters but cannot be seen this way.
    """

    server: str
    present: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    not_seen: tuple[str, ...] = ()


class Broker(Protocol):
    """A queue of jobs and the events about their ends.

    Every method but `tend` and `close` may raise `BrokerUnavailable`, a TransientError; the next
    call tries again.
    """

    def publish(self, job: DefaceJob, traceparent: str | None = None) -> None:
        """Put a job into the queue and return when it is safe there.

        Args:
            job: what to do.
            traceparent: goes beside the message, through every retry, to whoever handles it.

        Raises:
            BrokerUnavailable: the queue did not confirm it; publishing it again is harmless.
            InvalidMessage: the job cannot travel.
        """

    def receive(self, wait_seconds: float) -> Delivery | None:
        """Take the next job, waiting so long for one; None when there is none.

        Raises:
            BrokerUnavailable: not reachable within that time; call again, the pauses between
                attempts to connect grow by themselves.
        """

    def tend(self, seconds: float) -> bool:
        """Keep the connection and what is held alive for so long; call it every few seconds while a job runs, or while pausing.

        Never raises. Without a delivery in hand it takes none: a pausing worker keeps no job from
            the others.

        Returns:
            Whether the delivery is still held (True without one). False: it may be delivered again,
                to us or to another.
        """

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Say what becomes of a delivery; `Ack` before `announce`, so that a slow event never costs an attempt.

        Returns:
            False when it came too late or the connection broke over it: the job is delivered again.
        """

    def announce(self, event: CaseEvent) -> None:
        """Tell whoever listens how a job ended; nobody listening is no error.

        Raises:
            BrokerUnavailable: the event could not be sent; it is a hint, so nobody has to send it
                again.
        """

    def listen(self, wait_seconds: float) -> CaseEvent | None:
        """Return the next event after the first call of this method, waiting so long for one."""

    def depth(self) -> Depth:
        """Count what lies in the queue."""

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """List the oldest dead letters and leave them where they are."""

    def requeue(self, tag: str, body: bytes | None = None) -> bool:
        """Put a dead letter back into the queue as a first attempt, with another body if one is given; False when it is gone."""

    def close(self) -> None:
        """Give up what is held (it is delivered again) and close the connection."""
