"""The client of RabbitMQ: publisher confirms, one unsettled delivery."""

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import pika
from pika.adapters.blocking_connection import BlockingChannel

from ctdeface_shared.broker.protocols import DeadLetter, Delivery, Depth
from ctdeface_shared.broker.rabbitmq.link import Link
from ctdeface_shared.broker.settlement import Ack, Reject, Requeue, Retry, Settlement
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.broker.topology import (
    CODE_HEADER,
    DEAD,
    EVENTS,
    JOBS,
    TRACE_HEADER,
    nearest,
    retry_queue,
)
from ctdeface_shared.errors import BrokerUnavailable
from ctdeface_shared.jobs.messages import (
    LARGEST_BYTES,
    CaseEvent,
    DefaceJob,
    encode_event,
    encode_job,
)
from ctdeface_shared.tracing.spans import traceparent_in

WAIT_SECONDS = 10.0
_COUNT_HEADER = "x-delivery-count"
"""Written by the server on each delivery from a quorum queue, over what the sender wrote."""

_Message: TypeAlias = tuple[pika.spec.Basic.Deliver, pika.BasicProperties, bytes]


class RabbitBroker:
    """A client of RabbitMQ with its own connection."""

    def __init__(self, target: BrokerTarget) -> None:
        """Prepare the connection, which the first call opens.

        Raises:
            ConfigurationError: URL, credentials or certificates cannot be used.
        """
        self._link = Link(target)
        self._delays = target.retry_delays
        self._arrived: deque[_Message] = deque()
        self._consumer: tuple[int, str] | None = None  # epoch and name
        self._held: Delivery | None = None

    def publish(self, job: DefaceJob, traceparent: str | None = None) -> None:
        """Publish a job, and wait for the server's confirmation."""
        body, headers = encode_job(job), _trace(traceparent)
        try:
            self._send(JOBS, body, headers)
        except BrokerUnavailable:
            if self._link.is_open:
                raise
            # A connection that was idle for too long breaks on its first use.
            self._send(JOBS, body, headers)

    def receive(self, wait_seconds: float) -> Delivery | None:
        """Return the next job, or None after `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        while True:
            self._consume(self._link.channel(wait_seconds))
            if self._arrived:
                break
            left = deadline - time.monotonic()
            self._link.pump(max(left, 0))
            if left <= 0 and not self._arrived:
                return None
        method, properties, body = self._arrived.popleft()
        headers = properties.headers or {}
        again = _number(headers, _COUNT_HEADER) if method.redelivered else 0
        tag = f"{self._link.epoch}:{method.delivery_tag}"
        self._held = Delivery(
            tag=tag,
            body=body,
            attempt=again + 1,
            traceparent=traceparent_in(headers.get(TRACE_HEADER)),
        )
        return self._held

    def tend(self, seconds: float) -> bool:
        """Send heartbeats, and return whether the delivery is still held."""
        deadline = time.monotonic() + seconds
        try:
            if self._held is None:
                self._stop_consuming()
            while self._link.is_open:
                left = deadline - time.monotonic()
                self._link.pump(max(left, 0))
                if left <= 0:
                    break
        except BrokerUnavailable:
            pass  # what was held is delivered again; the next call connects
        time.sleep(max(deadline - time.monotonic(), 0))
        return self._held is None or self._is_ours(self._held)

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Settle a delivery; return False if that came too late.

        A copy is published to its destination and confirmed before the delivery is acknowledged.
        """
        self._held = None
        if not self._is_ours(delivery):
            return False
        trace = _trace(delivery.traceparent)
        try:
            match settlement:
                case Ack():
                    pass
                case Retry():
                    queue = retry_queue(nearest(settlement.delay_seconds, self._delays))
                    self._send(queue, delivery.body, trace)
                case Requeue():
                    self._send(JOBS, delivery.body, trace)
                case Reject():
                    self._send(DEAD, delivery.body, {CODE_HEADER: settlement.code, **trace})
            if not self._is_ours(delivery):
                return False
            with self._link.errors_named():
                self._link.channel(0).basic_ack(int(delivery.tag.partition(":")[2]))
                self._link.pump(0)
        except BrokerUnavailable:
            # Otherwise the unsettled delivery would stay here and block the next one.
            self._link.drop()
            return False
        return True

    def announce(self, event: CaseEvent) -> None:
        """Publish an event to the topic exchange."""
        body = encode_event(event)
        channel = self._link.channel(WAIT_SECONDS)
        with self._link.errors_named():
            channel.basic_publish(EVENTS, event.kind.value, body, _persistent({}))

    def depth(self) -> Depth:
        """Count the jobs by state, except the held ones.

        AMQP does not report these.
        """
        channel = self._link.channel(WAIT_SECONDS)

        def count(queue: str) -> int:
            with self._link.errors_named():
                return int(channel.queue_declare(queue, passive=True).method.message_count)

        return Depth(
            ready=count(JOBS),
            held=None,
            delayed=sum(count(retry_queue(delay)) for delay in set(self._delays)),
            dead=count(DEAD),
        )

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest dead letters.

        They are fetched without an acknowledgement, so that they return to their place.
        """
        channel = self._link.side_channel(WAIT_SECONDS)
        letters: list[DeadLetter] = []
        with self._link.errors_named():
            for _, properties, body in _taken(channel):
                # Thousands of large ones would fill the memory.
                shown = body[: LARGEST_BYTES + 1]
                letters.append(DeadLetter(tag=_digest(body), body=shown, code=_code(properties)))
                if len(letters) >= limit:
                    break
            channel.close()
        return letters

    def requeue(self, tag: str, body: bytes | None = None) -> bool:
        """Publish a dead letter as a first attempt, then remove it.

        A crash in between leaves both.
        """
        channel = self._link.side_channel(WAIT_SECONDS)
        with self._link.errors_named():
            found = next(
                (
                    (number, letter)
                    for number, _, letter in _taken(channel)
                    if _digest(letter) == tag
                ),
                None,
            )
            if found:
                number, letter = found
                channel.basic_publish(
                    "", JOBS, letter if body is None else body, _persistent({}), mandatory=True
                )
                channel.basic_ack(number)
            channel.close()
        return found is not None

    def close(self) -> None:
        """Close the connection; the held delivery is delivered again."""
        self._held = None
        self._arrived.clear()
        self._link.drop()

    def _send(self, queue: str, body: bytes, headers: dict[str, int | str] | None = None) -> None:
        channel = self._link.channel(WAIT_SECONDS)
        with self._link.errors_named():
            channel.basic_publish("", queue, body, _persistent(headers or {}), mandatory=True)

    def _is_ours(self, delivery: Delivery) -> bool:
        return self._link.is_open and delivery.tag.partition(":")[0] == str(self._link.epoch)

    def _consume(self, channel: BlockingChannel) -> None:
        if self._consumer and self._consumer[0] == self._link.epoch:
            return
        self._arrived.clear()  # from an earlier connection: they are delivered again
        with self._link.errors_named():
            channel.add_on_cancel_callback(self._cancelled)
            name = channel.basic_consume(
                JOBS,
                lambda _, method, properties, body: self._arrived.append(
                    (method, properties, body)
                ),
            )
        self._consumer = (self._link.epoch, name)

    def _cancelled(self, _reason: object) -> None:
        """Forget the consumer, which the server cancelled.

        This happens when a queue moves to another node, for example.
        """
        self._consumer = None

    def _stop_consuming(self) -> None:
        """Cancel the consumer, and requeue jobs that arrived meanwhile."""
        if self._consumer and self._consumer[0] == self._link.epoch and self._link.is_open:
            channel = self._link.channel(0)
            with self._link.errors_named():
                channel.basic_cancel(self._consumer[1])
                while self._arrived:
                    channel.basic_nack(self._arrived.popleft()[0].delivery_tag, requeue=True)
        self._consumer = None


def _taken(channel: BlockingChannel) -> Iterator[tuple[int, pika.BasicProperties, bytes]]:
    while True:
        method, properties, body = channel.basic_get(DEAD)
        if method is None:
            return
        yield method.delivery_tag, properties, body


def _persistent(headers: dict[str, int | str]) -> pika.BasicProperties:
    return pika.BasicProperties(delivery_mode=2, content_type="application/json", headers=headers)


def _trace(traceparent: str | None) -> dict[str, int | str]:
    return {TRACE_HEADER: traceparent} if traceparent else {}


def _number(headers: dict[str, object], name: str) -> int:
    value = headers.get(name)
    return max(int(value), 0) if isinstance(value, int) else 0


def _code(properties: pika.BasicProperties) -> str:
    """Return the error code, or RabbitMQ's reason such as `delivery_limit`."""
    headers = properties.headers or {}
    return str(headers.get(CODE_HEADER) or headers.get("x-first-death-reason") or "unknown")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
