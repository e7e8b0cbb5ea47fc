"""A queue in memory, for unit tests.

It keeps the promises of the real queues, but nothing outlives the process.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from ctdeface_shared.broker.protocols import DeadLetter, Delivery, Depth
from ctdeface_shared.broker.settlement import Ack, Reject, Requeue, Retry, Settlement
from ctdeface_shared.jobs.messages import CaseEvent, DefaceJob, encode_job


@dataclass(slots=True)
class MemoryQueue:
    """The shared state of one queue, guarded by `changed`.

    Attributes:
        changed: held for every access, notified after every change.
        ready: jobs that wait for a worker.
        delayed: jobs that wait for their next attempt, with the monotonic time in seconds at
            which it is due.
        held: delivered and unsettled jobs by tag.
        dead: dead letters by tag.
        announced: every event, so that tests can look at them.
        tags: source of delivery tags.
    """

    changed: threading.Condition = field(default_factory=threading.Condition)
    ready: deque[Delivery] = field(default_factory=deque)
    delayed: list[tuple[float, Delivery]] = field(default_factory=list)
    held: dict[str, Delivery] = field(default_factory=dict)
    dead: dict[str, DeadLetter] = field(default_factory=dict)
    announced: list[CaseEvent] = field(default_factory=list)
    tags: "count[int]" = field(default_factory=count)

    def put(
        self,
        body: bytes,
        attempt: int = 1,
        *,
        delay_seconds: float = 0.0,
        traceparent: str | None = None,
    ) -> None:
        """Add a message, ready immediately or after a delay."""
        with self.changed:
            entry = Delivery(
                tag=str(next(self.tags)), body=body, attempt=attempt, traceparent=traceparent
            )
            if delay_seconds > 0:
                self.delayed.append((time.monotonic() + delay_seconds, entry))
            else:
                self.ready.append(entry)
            self.changed.notify_all()


class MemoryBroker:
    """A client of a `MemoryQueue`."""

    def __init__(self, queue: MemoryQueue | None = None) -> None:
        """Connect to a queue, or to a new one."""
        self.queue = queue or MemoryQueue()
        self._held: Delivery | None = None

    def publish(self, job: DefaceJob, traceparent: str | None = None) -> None:
        """Add a job to the queue."""
        self.queue.put(encode_job(job), traceparent=traceparent)

    def receive(self, wait_seconds: float) -> Delivery | None:
        """Return the next job, or None after `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        with self.queue.changed:
            while not (self._release_due() or time.monotonic() >= deadline):
                self.queue.changed.wait(min(0.02, wait_seconds))
            if not self.queue.ready:
                return None
            self._held = self.queue.ready.popleft()
            self.queue.held[self._held.tag] = self._held
            return self._held

    def tend(self, seconds: float) -> bool:
        """Sleep, and return whether the delivery is still held."""
        time.sleep(seconds)
        return self._held is None or self._held.tag in self.queue.held

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Settle a delivery; return False if that came too late."""
        with self.queue.changed:
            self._held = None
            if self.queue.held.pop(delivery.tag, None) is None:
                return False
        match settlement:
            case Ack():
                pass
            case Retry():
                self.queue.put(
                    delivery.body,
                    delay_seconds=settlement.delay_seconds,
                    traceparent=delivery.traceparent,
                )
            case Requeue():
                self.queue.put(delivery.body, delivery.attempt, traceparent=delivery.traceparent)
            case Reject():
                with self.queue.changed:
                    self.queue.dead[delivery.tag] = DeadLetter(
                        tag=delivery.tag, body=delivery.body, code=settlement.code
                    )
        return True

    def announce(self, event: CaseEvent) -> None:
        """Record an event."""
        with self.queue.changed:
            self.queue.announced.append(event)

    def depth(self) -> Depth:
        """Count the jobs by state."""
        with self.queue.changed:
            self._release_due()
            parts = self.queue.ready, self.queue.held, self.queue.delayed, self.queue.dead
            ready, held, delayed, dead = map(len, parts)
        return Depth(ready=ready, held=held, delayed=delayed, dead=dead)

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """List the oldest dead letters."""
        with self.queue.changed:
            return list(self.queue.dead.values())[:limit]

    def requeue(self, tag: str, body: bytes | None = None) -> bool:
        """Requeue a dead letter as a first attempt."""
        with self.queue.changed:
            letter = self.queue.dead.pop(tag, None)
        if letter:
            self.queue.put(letter.body if body is None else body)
        return letter is not None

    def close(self) -> None:
        """Requeue the held delivery, counting it as an attempt."""
        with self.queue.changed:
            held = self._held and self.queue.held.pop(self._held.tag, None)
            self._held = None
            if held:
                self.queue.ready.appendleft(
                    replace(held, tag=str(next(self.queue.tags)), attempt=held.attempt + 1)
                )
                self.queue.changed.notify_all()

    def _release_due(self) -> bool:
        """Make due jobs ready, and return whether any is ready."""
        now = time.monotonic()
        due = [entry for entry in self.queue.delayed if entry[0] <= now]
        for entry in due:
            self.queue.delayed.remove(entry)
            self.queue.ready.append(entry[1])
        return bool(self.queue.ready)
