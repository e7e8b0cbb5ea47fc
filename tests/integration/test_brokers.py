"""The contract of every queue: memory, SQLite and RabbitMQ pass the same tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.memory import MemoryBroker, MemoryQueue
from ctdeface_shared.broker.protocols import Broker, Delivery, Depth
from ctdeface_shared.broker.settlement import Ack, Reject, Requeue, Retry
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.errors import InvalidMessage
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import CaseEvent, DefaceJob, EventKind, decode_job
from ctdeface_shared.jobs.options import DefaceOptions

DELAY_SECONDS = 0.4
LEASE_SECONDS = 1.0
DEADLINE_SECONDS = 60.0  # on a machine that is busy otherwise
NOTHING_SECONDS = 0.2
CONSUMER = """
import sys
from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.target import BrokerTarget
target = BrokerTarget(
    url=sys.argv[1], lease_seconds=float(sys.argv[2]), retry_delays=(float(sys.argv[3]),)
)
broker = open_broker(target)
print(broker.receive(20).attempt, flush=True)
while broker.tend(0.2): pass
"""


SENDER = """
import sys
from datetime import UTC, datetime
from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions
broker = open_broker(BrokerTarget(url=sys.argv[1], retry_delays=(float(sys.argv[3]),)))
manifest = Manifest(files=1, bytes=1, digest="0" * 64)
for number in range(100_000):
    name, options = f"case {number}", DefaceOptions()
    broker.publish(DefaceJob(
        job_id=job_id(name, manifest, options), case=name, manifest=manifest,
        submitted_at=datetime.now(UTC), options=options,
    ))
    print(name, flush=True)
"""
EATER = """
import sys
from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.settlement import Ack
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.jobs.messages import decode_job
target = BrokerTarget(url=sys.argv[1], lease_seconds=60, retry_delays=(float(sys.argv[3]),))
broker = open_broker(target)
while delivery := broker.receive(1.0):
    assert broker.settle(delivery, Ack())
    print(decode_job(delivery.body).case, flush=True)
"""


class Opened:
    """A queue under test: opens users of it and closes them afterwards."""

    def __init__(self, target: BrokerTarget | None) -> None:
        """Use a target, or a queue in memory."""
        self.target = target
        self._memory = MemoryQueue()
        self._users: list[Broker] = []

    def __call__(self) -> Broker:
        """Open one more user."""
        user: Broker = open_broker(self.target) if self.target else MemoryBroker(self._memory)
        self._users.append(user)
        return user

    def drop(self, body: bytes) -> None:
        """Put arbitrary bytes where jobs belong."""
        put_raw(self.target, body) if self.target else self._memory.put(body)

    def close(self) -> None:
        """Close every user."""
        for user in self._users:
            user.close()


def put_raw(target: BrokerTarget, *bodies: bytes) -> None:
    """Put raw bytes into an empty queue, as a foreign sender could."""
    broker = open_broker(target)
    for number in range(len(bodies)):
        broker.publish(job(f"raw {number}"))
        assert broker.settle(received(broker), Reject("Raw"))
    wait_for(lambda: broker.depth().dead == len(bodies))
    for letter, body in zip(broker.dead_letters(), bodies, strict=True):
        assert broker.requeue(letter.tag, body)
    broker.close()


def job(name: str) -> DefaceJob:
    """A job about a case of this name."""
    manifest = Manifest(files=1, bytes=1, digest="0" * 64)
    options = DefaceOptions()
    return DefaceJob(
        job_id=job_id(name, manifest, options),
        case=name,
        manifest=manifest,
        submitted_at=datetime.now(UTC),
        options=options,
        taken="0" * 32,
    )


def received(broker: Broker) -> Delivery:
    """The next delivery, which must come."""
    delivery = broker.receive(DEADLINE_SECONDS)
    assert delivery is not None
    return delivery


def case_of(delivery: Delivery) -> str:
    """The case that a delivery is about."""
    return decode_job(delivery.body).case


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something holds that a queue may do a moment later."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def target_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> BrokerTarget | None:
    """How to reach a fresh queue of a kind."""
    if kind == "memory":
        return None
    url = (
        f"sqlite://{folder}/queue.sqlite3"
        if kind == "sqlite"
        else request.getfixturevalue("clean_rabbitmq").url
    )
    return BrokerTarget(url=url, lease_seconds=LEASE_SECONDS, retry_delays=(DELAY_SECONDS,))


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A fresh queue of each kind."""
    opened = Opened(target_of(request.param, tmp_path, request))
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "rabbitmq"])
def durable_queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A fresh queue of each kind that outlives processes."""
    opened = Opened(target_of(request.param, tmp_path, request))
    yield opened
    opened.close()


def process(script: str, target: BrokerTarget) -> subprocess.Popen[str]:
    """Start one of the scripts above on a queue."""
    arguments = [target.url, str(target.lease_seconds), str(DELAY_SECONDS)]
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_a_published_job_is_delivered_once_and_gone_after_its_ack(queue: Opened) -> None:
    """What was sent arrives as it was, and nothing is left."""
    sender, worker = queue(), queue()
    sender.publish(job("a"))
    delivery = received(worker)
    assert decode_job(delivery.body) == replace(
        job("a"), submitted_at=decode_job(delivery.body).submitted_at
    )
    assert delivery.attempt == 1
    assert worker.settle(delivery, Ack())
    assert worker.receive(NOTHING_SECONDS) is None
    wait_for(
        lambda: (sender.depth().ready, sender.depth().delayed, sender.depth().dead) == (0, 0, 0)
    )


def test_a_worker_holds_one_job_and_leaves_the_rest_to_others(queue: Opened) -> None:
    """While one worker holds a delivery, another gets the second job."""
    sender, first, second = queue(), queue(), queue()
    for name in ("a", "b", "c"):
        sender.publish(job(name))
    held = received(first)
    assert (case_of(held), case_of(received(second))) == ("a", "b")
    wait_for(lambda: sender.depth().ready == 1)
    assert first.settle(held, Ack())
    assert case_of(received(first)) == "c"


def test_a_worker_that_pauses_holds_nothing_back(queue: Opened) -> None:
    """A worker that asked in vain and then pauses does not take the job that comes meanwhile."""
    sender, pausing, working = queue(), queue(), queue()
    assert pausing.receive(NOTHING_SECONDS) is None
    assert pausing.tend(0.1)
    sender.publish(job("a"))
    assert pausing.tend(0.2)
    delivery = received(working)
    assert (case_of(delivery), delivery.attempt) == ("a", 1)


def test_a_retry_comes_after_its_delay_as_a_first_delivery(queue: Opened) -> None:
    """The pause is kept; attempts are counted on the disk of the service."""
    broker = queue()
    broker.publish(job("a"))
    for _ in range(2):
        delivery = received(broker)
        assert delivery.attempt == 1
        started = time.monotonic()
        assert broker.settle(delivery, Retry(DELAY_SECONDS))
        assert broker.depth() == replace(broker.depth(), ready=0, delayed=1)
    delivery = received(broker)
    assert delivery.attempt == 1
    assert time.monotonic() - started >= DELAY_SECONDS * 0.9
    assert broker.settle(delivery, Ack())


def test_a_job_that_is_handed_back_goes_to_another_worker(queue: Opened) -> None:
    """A worker that stops delays no job."""
    leaving, staying = queue(), queue()
    leaving.publish(job("a"))
    assert leaving.settle(received(leaving), Requeue())
    leaving.close()
    assert case_of(received(staying)) == "a"


def test_what_is_not_settled_is_delivered_again(queue: Opened) -> None:
    """A worker that closes while it holds a job passes it on as a further attempt."""
    leaving, staying = queue(), queue()
    leaving.publish(job("a"))
    received(leaving)
    leaving.close()
    again = received(staying)
    assert (case_of(again), again.attempt) == ("a", 2)


def test_a_dead_letter_is_listed_and_can_be_revived(queue: Opened) -> None:
    """A dead letter keeps its reason, survives inspection, and restarts when requeued."""
    broker = queue()
    broker.publish(job("a"))
    broker.publish(job("b"))
    for _ in range(2):
        assert broker.settle(received(broker), Reject("EscapingPath"))
    wait_for(lambda: broker.depth().dead == 2)
    for _ in range(2):
        letters = broker.dead_letters()
        assert [(decode_job(letter.body).case, letter.code) for letter in letters] == [
            ("a", "EscapingPath"),
            ("b", "EscapingPath"),
        ]
    assert broker.dead_letters(1) == letters[:1]
    assert broker.requeue(letters[1].tag)
    assert not broker.requeue(letters[1].tag)
    delivery = received(broker)
    assert (case_of(delivery), delivery.attempt) == ("b", 1)
    wait_for(lambda: broker.depth().dead == 1)


def test_a_message_that_is_no_job_can_be_buried(queue: Opened) -> None:
    """Unreadable bytes arrive unchanged and end as a dead letter; the queue continues."""
    queue.drop(b"\xff no job")
    broker = queue()
    delivery = received(broker)
    with pytest.raises(InvalidMessage):
        decode_job(delivery.body)
    assert broker.settle(delivery, Reject("InvalidMessage"))
    broker.publish(job("a"))
    assert case_of(received(broker)) == "a"
    assert [(letter.body, letter.code) for letter in broker.dead_letters()] == [
        (b"\xff no job", "InvalidMessage")
    ]


def test_publishing_twice_is_harmless(queue: Opened) -> None:
    """Two messages about one job are two deliveries of the same job, one after the other."""
    broker = queue()
    broker.publish(job("a"))
    broker.publish(job("a"))
    ids = []
    for _ in range(2):
        delivery = received(broker)
        ids.append(decode_job(delivery.body).job_id)
        assert broker.settle(delivery, Ack())
    assert ids == [job("a").job_id] * 2
    assert broker.receive(NOTHING_SECONDS) is None


def test_an_event_without_a_subscriber_is_not_an_error(queue: Opened) -> None:
    """Events are hints, and the embedded queue has no subscribers at all."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    queue().announce(CaseEvent(kind=EventKind.RELEASED, job_id=job("a").job_id, finished_at=now))
    assert queue().receive(NOTHING_SECONDS) is None


def test_a_job_outlives_its_worker_process(durable_queue: Opened) -> None:
    """A worker that is killed with a job in hand costs one attempt and not the job."""
    assert durable_queue.target
    broker = durable_queue()
    broker.publish(job("a"))
    for attempt in (1, 2):
        holder = process(CONSUMER, durable_queue.target)
        assert holder.stdout
        assert holder.stdout.readline() == f"{attempt}\n"
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    delivery = received(broker)
    assert (case_of(delivery), delivery.attempt) == ("a", 3)
    assert broker.settle(delivery, Ack())


def test_a_job_of_a_process_that_was_killed_is_free_long_before_its_lease_ends(
    tmp_path: Path,
) -> None:
    """The embedded queue releases leases of dead processes only."""
    target = BrokerTarget(
        url=f"sqlite://{tmp_path}/queue.sqlite3", lease_seconds=600, retry_delays=(DELAY_SECONDS,)
    )
    broker = open_broker(target)
    broker.publish(job("a"))
    holder = process(CONSUMER, target)
    assert holder.stdout
    assert holder.stdout.readline() == "1\n"
    assert broker.receive(2.5) is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    begun = time.monotonic()
    delivery = received(broker)
    assert (case_of(delivery), delivery.attempt) == ("a", 2)
    assert time.monotonic() - begun < 5
    broker.close()


def test_a_job_that_runs_for_long_stays_with_its_worker(durable_queue: Opened) -> None:
    """While its worker tends it, no other worker receives the job."""
    working, waiting = durable_queue(), durable_queue()
    working.publish(job("a"))
    delivery = received(working)
    deadline = time.monotonic() + 2.5 * LEASE_SECONDS
    while time.monotonic() < deadline:
        assert working.tend(0.1)
        assert waiting.receive(0) is None
    assert working.settle(delivery, Ack())
    assert waiting.depth() == replace(
        Depth(ready=0, held=0, delayed=0, dead=0), held=waiting.depth().held
    )


def test_what_was_published_outlives_its_sender(durable_queue: Opened) -> None:
    """Jobs are in the queue for any client that opens it later."""
    sender = durable_queue()
    for name in "abc":
        sender.publish(job(name))
    sender.close()
    worker = durable_queue()
    names = []
    while delivery := worker.receive(NOTHING_SECONDS * 3):
        names.append(case_of(delivery))
        assert worker.settle(delivery, Ack())
    assert names == ["a", "b", "c"]


def test_nothing_confirmed_is_lost_and_nothing_goes_to_two_of_several_processes(
    durable_queue: Opened,
) -> None:
    """After a killed sender, three processes share the confirmed jobs, each job once."""
    assert durable_queue.target
    sender = process(SENDER, durable_queue.target)
    assert sender.stdout
    first = [sender.stdout.readline() for _ in range(60)]
    os.kill(sender.pid, signal.SIGKILL)
    confirmed = {
        line.strip()
        for line in [*first, *sender.communicate()[0].splitlines(keepends=True)]
        if line.endswith("\n")
    }
    eaters = [process(EATER, durable_queue.target) for _ in range(3)]
    eaten = [line for eater in eaters for line in eater.communicate()[0].splitlines()]
    assert not [eater.returncode for eater in eaters if eater.returncode]
    assert len(eaten) == len(set(eaten))
    assert confirmed <= set(eaten)
    assert len(set(eaten) - confirmed) <= 1  # the one that the kill came between
