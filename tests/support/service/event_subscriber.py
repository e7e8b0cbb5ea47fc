"""A subscriber to the events in RabbitMQ, as a downstream system would write one."""

import time
from collections import deque

from ctdeface_shared.broker.rabbitmq.link import Link
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.broker.topology import EVENTS
from ctdeface_shared.jobs.messages import EventMessage

CONNECT_SECONDS = 10.0


class EventSubscriber:
    """Receives every event that is announced after it was made."""

    def __init__(self, target: BrokerTarget) -> None:
        """Bind a queue that is deleted with the connection."""
        self._link = Link(target)
        self._bodies: deque[bytes] = deque()
        channel = self._link.channel(CONNECT_SECONDS)
        name = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
        channel.queue_bind(name, EVENTS, "case.*")
        channel.basic_consume(name, lambda *message: self._bodies.append(message[3]), auto_ack=True)

    def next_body(self, wait_seconds: float) -> bytes | None:
        """Return the next event as it was sent, or None after this time."""
        deadline = time.monotonic() + wait_seconds
        while not self._bodies and time.monotonic() < deadline:
            self._link.pump(max(deadline - time.monotonic(), 0))
        return self._bodies.popleft() if self._bodies else None

    def next_event(self, wait_seconds: float) -> EventMessage | None:
        """Return the next event, or None after this time."""
        body = self.next_body(wait_seconds)
        return None if body is None else EventMessage.model_validate_json(body)

    def close(self) -> None:
        """Close the connection."""
        self._link.drop()
