"""The protocol that every queue implements, and its values.

A broker object belongs to one thread, holds at most one unsettled delivery, and reconnects by
itself. Its promises:

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
    """A message from the queue, not yet decoded.

    Attributes:
        tag: the queue's name for this delivery.
        body: the message; `messages.decode_job` may refuse it.
        attempt: number of this delivery since the message was last queued, from 1. The queue itself
            counts it; nothing that the sender wrote is used.
        traceparent: trace of the sender (W3C Trace Context); None without one.
    """

    tag: str
    body: bytes
    attempt: int = 1
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """The number of jobs in each state of the queue.

    Attributes:
        ready: waiting for a worker.
        held: delivered and not settled; None if the queue does not report it.
        delayed: waiting for their next attempt.
        dead: dead letters.
    """

    ready: int
    held: int | None
    delayed: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead-lettered message.

    Attributes:
        tag: its name for `Broker.requeue`.
        body: the message as it was received, cut off where it is larger than any job.
        code: code of the error, or the queue's own reason.
    """

    tag: str
    body: bytes
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The result of a check of the queue.

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
    """A client of the queue.

    Every method but `tend` and `close` may raise `BrokerUnavailable`, a TransientError; the next
    call tries again.
    """

    def publish(self, job: DefaceJob, traceparent: str | None = None) -> None:
        """Add a job, and wait until the queue has stored it.

        Args:
            job: the job.
            traceparent: sent beside the message, through every retry (W3C Trace Context).

        Raises:
            BrokerUnavailable: the queue did not confirm it; publishing it again is harmless.
            InvalidMessage: the job cannot be encoded as a message.
        """

    def receive(self, wait_seconds: float) -> Delivery | None:
        """Return the next job, or None after this time.

        Raises:
            BrokerUnavailable: the queue was not reachable within this time. Call again; the pauses
                between attempts to connect grow by themselves.
        """

    def tend(self, seconds: float) -> bool:
        """Keep connection and held delivery alive for this time.

        Call it every few seconds while a job runs, or while pausing. Without a held delivery it
        receives none, so a pausing worker keeps no job from the others. Never raises.

        Returns:
            Whether the delivery is still held (True without one). If not, it may be delivered
            again, to this client or to another.
        """

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Settle a delivery.

        Call it with `Ack` before `announce`, so that a slow event never costs an attempt.

        Returns:
            False if it came too late or the connection broke: the job is delivered again.
        """

    def announce(self, event: CaseEvent) -> None:
        """Publish how a job ended.

        Without a subscriber the event is dropped.

        Raises:
            BrokerUnavailable: the event could not be sent. It is a hint, so it need not be sent
                again.
        """

    def depth(self) -> Depth:
        """Count the jobs by state."""

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest dead letters, which stay in the queue."""

    def requeue(self, tag: str, body: bytes | None = None) -> bool:
        """Requeue a dead letter as a first attempt.

        Args:
            tag: names the dead letter.
            body: replaces its body; None keeps it.

        Returns:
            False if the dead letter no longer exists.
        """

    def close(self) -> None:
        """Close the connection; a held delivery is delivered again."""
