"""The queue in RabbitMQ: quorum queues, confirmed publishing, one unsettled delivery."""

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
    ATTEMPTS_HEADER,
    CODE_HEADER,
    DEAD,
    EVENT_KEYS,
    EVENTS,
    JOBS,
    TRACE_HEADER,
    nearest,
    retry_queue,
)
from ctdeface_shared.errors import BrokerUnavailable, CtDefaceError
from ctdeface_shared.jobs.messages import (
    CaseEvent,
    DefaceJob,
    decode_event,
    encode_event,
    encode_job,
)
from ctdeface_shared.tracing.spans import traceparent_in

PATIENCE_SECONDS = 10.0
_COUNT_HEADER = "x-delivery-count"

_Message: TypeAlias = tuple[pika.spec.Basic.Deliver, pika.BasicProperties, bytes]


class RabbitBroker:
    """One user of the queue in RabbitMQ, on a connection of its own."""

    def __init__(self, target: BrokerTarget) -> None:
        """Prepare; the first call that needs the server connects.

        Raises:
            ConfigurationError: URL, credentials or certificates cannot be used.
        """
        self._link = Link(target)
        self._delays = target.retry_delays
        self._arrived: deque[_Message] = deque()
        self._consumer: tuple[int, str] | None = None  # epoch and name
        self._held: Delivery | None = None
        self._events: deque[bytes] = deque()
        self._listening: int | None = None  # epoch

    def publish(self, job: DefaceJob, traceparent: str | None = None) -> None:
        """Put a job into the queue and return when the server confirmed it."""
        body, headers = encode_job(job), _trace(traceparent)
        try:
            self._send(JOBS, body, headers)
        except BrokerUnavailable:
            if self._link.is_open:
                raise
            self._send(
                JOBS, body, headers
            )  # a connection that idled too long breaks on its first use

    def receive(self, wait_seconds: float) -> Delivery | None:
        """Take the next job."""
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
        made = max(_number(headers, ATTEMPTS_HEADER), _number(headers, _COUNT_HEADER))
        tag = f"{self._link.epoch}:{method.delivery_tag}"
        self._held = Delivery(
            tag=tag,
            body=body,
            attempt=made + 1,
            traceparent=traceparent_in(headers.get(TRACE_HEADER)),
        )
        return self._held

    def tend(self, seconds: float) -> bool:
        """Send heartbeats and see whether the connection holds."""
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
        """Say what becomes of a delivery: a copy goes where it belongs, confirmed, before the delivery is acknowledged."""
        self._held = None
        if not self._is_ours(delivery):
            return False
        trace = _trace(delivery.traceparent)
        try:
            match settlement:
                case Ack():
                    pass
                case Retry():
                    made = delivery.attempt if settlement.attempt is None else settlement.attempt
                    queue = retry_queue(nearest(settlement.delay_seconds, self._delays))
                    self._send(queue, delivery.body, {ATTEMPTS_HEADER: made, **trace})
                case Requeue():
                    self._send(
                        JOBS, delivery.body, {ATTEMPTS_HEADER: delivery.attempt - 1, **trace}
                    )
                case Reject():
                    self._send(DEAD, delivery.body, {CODE_HEADER: settlement.code, **trace})
            if not self._is_ours(delivery):
                return False
            with self._link.errors_named():
                self._link.channel(0).basic_ack(int(delivery.tag.partition(":")[2]))
                self._link.pump(0)
        except BrokerUnavailable:
            # else an unsettled delivery would stay with us and block the next one
            self._link.drop()
            return False
        return True

    def announce(self, event: CaseEvent) -> None:
        """Send an event to whoever is bound to the exchange."""
        body = encode_event(event)
        channel = self._link.channel(PATIENCE_SECONDS)
        with self._link.errors_named():
            channel.basic_publish(EVENTS, event.kind.value, body, _persistent({}))

    def listen(self, wait_seconds: float) -> CaseEvent | None:
        """Return the next event from a queue of our own that goes with the connection."""
        deadline = time.monotonic() + wait_seconds
        channel = self._link.channel(max(wait_seconds, PATIENCE_SECONDS))
        if self._listening != self._link.epoch:
            with self._link.errors_named():
                name = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
                channel.queue_bind(name, EVENTS, EVENT_KEYS)
                channel.basic_consume(
                    name, lambda *heard: self._events.append(heard[3]), auto_ack=True
                )
            self._listening = self._link.epoch
        while True:
            self._link.pump(0 if self._events else max(deadline - time.monotonic(), 0))
            while self._events:
                try:
                    return decode_event(self._events.popleft())
                except CtDefaceError:
                    continue  # a foreign sender's; events are hints
            if time.monotonic() >= deadline:
                return None

    def depth(self) -> Depth:
        """Ask how many jobs lie ready; who holds how many is not told over AMQP."""
        channel = self._link.channel(PATIENCE_SECONDS)

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
        """Take dead letters without acknowledging them, so that they go back to their place."""
        channel = self._link.side_channel(PATIENCE_SECONDS)
        letters: list[DeadLetter] = []
        with self._link.errors_named():
            for _, properties, body in _taken(channel):
                letters.append(DeadLetter(tag=_digest(body), body=body, code=_code(properties)))
                if len(letters) >= limit:
                    break
            channel.close()
        return letters

    def requeue(self, tag: str, body: bytes | None = None) -> bool:
        """Publish a dead letter anew, then take it out; a crash in between leaves both."""
        channel = self._link.side_channel(PATIENCE_SECONDS)
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
        """Close the connection; what is held is delivered again."""
        self._held = None
        self._arrived.clear()
        self._link.drop()

    def _send(self, queue: str, body: bytes, headers: dict[str, int | str] | None = None) -> None:
        channel = self._link.channel(PATIENCE_SECONDS)
        with self._link.errors_named():
            channel.basic_publish("", queue, body, _persistent(headers or {}), mandatory=True)

    def _is_ours(self, delivery: Delivery) -> bool:
        return self._link.is_open and delivery.tag.partition(":")[0] == str(self._link.epoch)

    def _consume(self, channel: BlockingChannel) -> None:
        if self._consumer and self._consumer[0] == self._link.epoch:
            return
        self._arrived.clear()  # from an older connection; they are delivered again
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
        """Note that the server ended our subscription, for example because the queue moved to another node."""
        self._consumer = None

    def _stop_consuming(self) -> None:
        """Take no more jobs, and give one back that arrived in between."""
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
    return int(value) if isinstance(value, int) else 0


def _code(properties: pika.BasicProperties) -> str:
    """Our own reason, else RabbitMQ's, such as `delivery_limit`."""
    headers = properties.headers or {}
    return str(headers.get(CODE_HEADER) or headers.get("x-first-death-reason") or "unknown")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
