"""The exchanges and queues in RabbitMQ.

Everything that correctness needs is declared as an argument here and not as a policy.

Names carry the version of the wire contract, so that a new version never reads messages
of the old one.

    ctdeface.v1.jobs   ── retry ──→  ctdeface.v1.retry.<ms>ms  ── after <ms> ──→  ctdeface.v1.jobs
           └── dead letter ──→ exchange ctdeface.v1.dead ──→ queue ctdeface.v1.dead
    exchange ctdeface.v1.events (topic): case.released, case.refused
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

JOBS = "ctdeface.v1.jobs"
DEAD = "ctdeface.v1.dead"
EVENTS = "ctdeface.v1.events"
TRACE_HEADER = "traceparent"
"""The trace of a message (W3C Trace Context)."""
CODE_HEADER = "x-ctdeface-code"
"""Code of the error for which a message was dead-lettered."""

_REDELIVERIES = 100
# RabbitMQ 4 limits redeliveries to 20 by default, and 3.10 has no value for "unlimited".
_NO_LIMIT = 1_000_000_000

_SAFE: Mapping[str, str | int] = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A durable queue.

    Attributes:
        name: name of the queue.
        arguments: arguments of its declaration; they never change.
        bound_to: exchange to which it is bound with the routing key `name`; empty for none.
    """

    name: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    bound_to: str = ""


EXCHANGES = (Exchange(name=DEAD, kind="direct"), Exchange(name=EVENTS, kind="topic"))


def queues(delays_seconds: Sequence[float]) -> tuple[Queue, ...]:
    """Return every queue, targets of dead letters first."""
    jobs = {**_SAFE, **_sends_to(DEAD, DEAD), "x-delivery-limit": _REDELIVERIES}
    return (
        Queue(name=DEAD, arguments={**_SAFE, "x-delivery-limit": _NO_LIMIT}, bound_to=DEAD),
        Queue(name=JOBS, arguments=jobs),
        *(
            Queue(
                name=retry_queue(delay),
                arguments={**_SAFE, **_sends_to("", JOBS), "x-message-ttl": milliseconds(delay)},
            )
            for delay in sorted(set(delays_seconds))
        ),
    )


def retry_queue(delay_seconds: float) -> str:
    """Return the name of the retry queue with this delay."""
    return f"ctdeface.v1.retry.{milliseconds(delay_seconds)}ms"


def nearest(delay_seconds: float, delays_seconds: Sequence[float]) -> float:
    """Return the configured delay closest to the wanted one.

    Args:
        delay_seconds: the wanted delay.
        delays_seconds: the delays that have a queue.
    """
    return min(delays_seconds, key=lambda delay: abs(delay - delay_seconds))


def milliseconds(seconds: float) -> int:
    """Return seconds in milliseconds, the unit of RabbitMQ."""
    return round(seconds * 1000)


def _sends_to(exchange: str, key: str) -> dict[str, str]:
    """Return the arguments for at-least-once dead-lettering.

    A message leaves the queue only after it has arrived at the next one.
    """
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
    }
