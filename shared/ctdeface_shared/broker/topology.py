"""What there is in RabbitMQ: exchanges, queues and their arguments. All that correctness needs stands here, not in policies.

Names carry the version of the wire contract, so that a new version never reads the old one's
messages.

    ctdeface.v1.jobs   ── retry ──→  ctdeface.v1.retry.<ms>ms  ── after that time ──→  ctdeface.v1.jobs
           └── dead letter ──→ exchange ctdeface.v1.dead ──→ queue ctdeface.v1.dead
    exchange ctdeface.v1.events (topic): case.released, case.refused
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

JOBS = "ctdeface.v1.jobs"
DEAD = "ctdeface.v1.dead"
EVENTS = "ctdeface.v1.events"
EVENT_KEYS = "case.*"
ATTEMPTS_HEADER = "x-ctdeface-attempts"
"""Attempts that a message has behind it."""
TRACE_HEADER = "traceparent"
"""W3C Trace Context: which trace a message belongs to."""
CODE_HEADER = "x-ctdeface-code"
"""Why a message is a dead letter."""

_REDELIVERIES = 100
# RabbitMQ 4 limits redeliveries to 20 unless told otherwise, and 3.10 knows no word for "never"
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
        name: its name.
        arguments: declared with it; they never change.
        bound_to: name of an exchange that gives it everything under the routing key `name`; empty
            for none.
    """

    name: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    bound_to: str = ""


EXCHANGES = (Exchange(name=DEAD, kind="direct"), Exchange(name=EVENTS, kind="topic"))


def queues(delays_seconds: Sequence[float]) -> tuple[Queue, ...]:
    """Every queue: where letters end, before the ones that send them there."""
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
    """Name of the queue where messages wait for so long."""
    return f"ctdeface.v1.retry.{milliseconds(delay_seconds)}ms"


def nearest(delay_seconds: float, delays_seconds: Sequence[float]) -> float:
    """The delay that has a queue and comes closest to the one asked for."""
    return min(delays_seconds, key=lambda delay: abs(delay - delay_seconds))


def milliseconds(seconds: float) -> int:
    """Seconds as RabbitMQ counts them."""
    return round(seconds * 1000)


def _sends_to(exchange: str, key: str) -> dict[str, str]:
    """Arguments with which a message leaves a queue only once it has arrived at the next one."""
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
    }
