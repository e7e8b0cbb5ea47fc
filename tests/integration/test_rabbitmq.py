"""RabbitMQ in operation: restarts, timeouts, other declarations, certificates."""

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from ctdeface_shared.broker.protocols import Delivery
from ctdeface_shared.broker.rabbitmq import RabbitBroker, check
from ctdeface_shared.broker.rabbitmq.link import Link
from ctdeface_shared.broker.settlement import Ack, Reject, Retry
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.broker.topology import DEAD, EVENTS, JOBS, queues, retry_queue
from ctdeface_shared.errors import BrokerUnavailable, ConfigurationError
from ctdeface_shared.jobs.messages import CaseEvent, EventKind, EventMessage, decode_job, encode_job
from tests.integration.rabbitmq_node import RabbitNode, forget_everything, running_node
from tests.integration.test_brokers import (
    DEADLINE_SECONDS,
    DELAY_SECONDS,
    case_of,
    job,
    received,
    wait_for,
)
from tests.support.service.event_subscriber import EventSubscriber
from tests.support.service.local_service import LocalService, configured_service
from tests.support.service.spools import Ends, drop, ends, job_for, reports

ROOT = Path(__file__).parents[2]
CTDEFACE = Path(sys.executable).with_name("ctdeface")
ACK_TIMEOUT_SECONDS = 3
CERTIFICATES = """
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
for name in server client; do
    openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
    printf 'subjectAltName=IP:127.0.0.1' >san
    openssl x509 -req -days 2 -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial \\
        -extfile san -out $name.pem
done
"""
STRICT = (
    f"consumer_timeout = {ACK_TIMEOUT_SECONDS * 1000}",
    "listeners.ssl.1 = 127.0.0.1:{tls_port}",
    "ssl_options.cacertfile = {folder}/ca.pem",
    "ssl_options.certfile = {folder}/server.pem",
    "ssl_options.keyfile = {folder}/server.key",
    "ssl_options.verify = verify_peer",
    "ssl_options.fail_if_no_peer_cert = true",
)


@pytest.fixture
def target(clean_rabbitmq: RabbitNode) -> BrokerTarget:
    """The ordinary server, empty."""
    return BrokerTarget(url=clean_rabbitmq.url, retry_delays=(DELAY_SECONDS,))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority of our own, and a server's and a client's certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(
        ["sh", "-e"], input=CERTIFICATES, text=True, cwd=folder, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def strict(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A server with a short ack timeout that asks for client certificates over TLS."""
    settings = [line.replace("{folder}", str(certificates)) for line in STRICT]
    with running_node(tmp_path_factory.mktemp("strict"), *settings) as node:
        yield node


@pytest.fixture
def strict_target(strict: RabbitNode) -> BrokerTarget:
    """The strict server, empty."""
    found = BrokerTarget(url=strict.url, retry_delays=(DELAY_SECONDS,), heartbeat_seconds=2)
    forget_everything(found)
    return found


def test_no_confirmed_job_is_lost_when_the_broker_is_killed(
    strict: RabbitNode, strict_target: BrokerTarget
) -> None:
    """Jobs in every state survive SIGKILL; all clients reconnect; a late ack does not count."""
    sender, worker = RabbitBroker(strict_target), RabbitBroker(strict_target)
    for name in ("dead", "delayed", "held", "ready"):
        sender.publish(job(name))
    assert worker.settle(received(worker), Reject("InvalidMessage"))
    assert worker.settle(received(worker), Retry(DELAY_SECONDS))
    held = received(worker)
    assert case_of(held) == "held"
    strict.kill()
    back = threading.Thread(target=strict.start)
    back.start()
    wait_for(lambda: not worker.tend(0.1))
    with pytest.raises(BrokerUnavailable):
        sender.depth()
    assert not worker.settle(held, Ack())
    back.join()
    wait_for(lambda: reaches(sender))
    sender.publish(job("later"))
    attempts: dict[str, int] = {}
    while len(attempts) < 4:
        delivery = received_again(worker)
        attempts[case_of(delivery)] = delivery.attempt
        assert worker.settle(delivery, Ack())
    assert attempts == {"ready": 1, "later": 1, "held": 2, "delayed": 1}
    wait_for(lambda: sender.depth().dead == 1)
    assert [letter.code for letter in sender.dead_letters()] == ["InvalidMessage"]
    for each in (sender, worker):
        each.close()


def reaches(broker: RabbitBroker) -> bool:
    """Return True if the broker answers again."""
    try:
        return broker.depth() is not None
    except BrokerUnavailable:
        return False


def received_again(broker: RabbitBroker) -> Delivery:
    """Return the next delivery, reconnecting as needed."""
    deadline = time.monotonic() + 3 * DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            if delivery := broker.receive(1.0):
                return delivery
        except BrokerUnavailable:
            continue
    pytest.fail("nothing came")


def test_a_job_longer_than_the_ack_timeout_is_not_lost(strict_target: BrokerTarget) -> None:
    """The broker requeues a running job; the late ack is refused, and the job repeats."""
    worker = RabbitBroker(strict_target)
    worker.publish(job("a"))
    first = received(worker)
    started = time.monotonic()
    while worker.tend(0.2):
        assert time.monotonic() - started < ACK_TIMEOUT_SECONDS + DEADLINE_SECONDS
    assert time.monotonic() - started >= ACK_TIMEOUT_SECONDS * 0.9
    assert not worker.settle(first, Ack())
    again = received(worker)
    assert (case_of(again), again.attempt) == ("a", 2)
    assert worker.settle(again, Ack())
    assert worker.receive(0.3) is None
    worker.close()


@pytest.mark.parametrize("forged", [99, -99, 2**63 - 1, True], ids=str)
def test_a_sender_cannot_set_the_number_of_attempts(target: BrokerTarget, forged: int) -> None:
    """The server counts deliveries itself, and no other count of a message is used."""
    worker = RabbitBroker(target)
    worker.depth()
    send_with_headers(
        target, encode_job(job("a")), {"x-ctdeface-attempts": forged, "x-delivery-count": forged}
    )
    first = received(worker)
    assert first.attempt == 1
    worker.close()
    again = received(worker)
    assert again.attempt == 2
    assert worker.settle(again, Retry(DELAY_SECONDS))
    last = received(worker)
    assert (case_of(last), last.attempt) == ("a", 1)
    assert worker.settle(last, Ack())
    worker.close()


def send_with_headers(target: BrokerTarget, body: bytes, headers: dict[str, int]) -> None:
    """Send a message as anyone with the right to publish can."""
    connection = pika.BlockingConnection(pika.URLParameters(target.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("", JOBS, body, pika.BasicProperties(delivery_mode=2, headers=headers))
    connection.close()


def test_heartbeats_keep_a_busy_worker_connected(target: BrokerTarget) -> None:
    """A job longer than three heartbeats stays with its worker, which tends the connection."""
    worker = RabbitBroker(replace(target, heartbeat_seconds=1))
    worker.publish(job("a"))
    delivery = received(worker)
    deadline = time.monotonic() + 3.5
    while time.monotonic() < deadline:
        assert worker.tend(0.5)
    assert worker.settle(delivery, Ack())
    wait_for(lambda: worker.depth().ready == 0)
    worker.close()


def test_a_sender_that_idled_too_long_publishes_all_the_same(target: BrokerTarget) -> None:
    """Publishing reconnects if the server closed the connection for missing heartbeats."""
    sender = RabbitBroker(target)
    sender.publish(job("a"))
    connection = sender._link._connection
    assert connection
    connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
    sender.publish(job("b"))
    wait_for(lambda: sender.depth().ready == 2)
    sender.close()


def test_a_job_that_is_never_settled_ends_as_a_dead_letter_of_the_broker(
    target: BrokerTarget,
) -> None:
    """Beyond the delivery limit the broker dead-letters a job, with its own reason."""
    link = Link(target)
    link.channel(DEADLINE_SECONDS)
    worker = RabbitBroker(target)
    worker.publish(job("a"))
    limit = queue_arguments(JOBS, target)["x-delivery-limit"]
    for _ in range(int(limit) + 1):
        with link.fresh_channel() as channel:
            method, _, _ = channel.basic_get(JOBS)
            while method is None:
                method, _, _ = channel.basic_get(JOBS)
            channel.basic_nack(method.delivery_tag, requeue=True)
    wait_for(lambda: worker.depth().dead == 1)
    assert [letter.code for letter in worker.dead_letters()] == ["delivery_limit"]
    worker.close()
    link.drop()


def test_the_documented_consumer_hears_of_released_cases_only(target: BrokerTarget) -> None:
    """The example of docs/reference/messages.md runs and prints a released job."""
    (code,) = re.findall(
        r"```python\n(.*?)```",
        (ROOT / "docs/reference/messages.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    worker = RabbitBroker(target)
    assert worker.depth().ready == 0
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "BROKER_URL": target.url},
        stdout=subprocess.PIPE,
        text=True,
    ) as consumer:
        wait_for(lambda: is_declared(target, "my-archive.released"))
        time.sleep(0.2)  # between its declaration and its binding
        for kind, code_of_refusal in (
            (EventKind.REFUSED, "FaceNotFound"),
            (EventKind.RELEASED, None),
        ):
            worker.announce(
                CaseEvent(
                    kind=kind,
                    job_id=job(kind).job_id,
                    code=code_of_refusal,
                    finished_at=datetime.now(UTC),
                )
            )
        assert consumer.stdout
        assert consumer.stdout.readline().strip() == job(EventKind.RELEASED).job_id
        consumer.kill()
    worker.close()


def is_declared(target: BrokerTarget, queue: str) -> bool:
    """Return True if a queue exists."""
    link = Link(target)
    link.connect(DEADLINE_SECONDS)
    try:
        with link.fresh_channel() as channel:
            channel.queue_declare(queue, passive=True)
    except ChannelClosedByBroker:
        return False
    finally:
        link.drop()
    return True


def test_the_documented_messages_follow_the_contract() -> None:
    """The examples of docs/reference/messages.md are read as a job and an event."""
    examples = re.findall(
        r"```json\n(.*?)```",
        (ROOT / "docs/reference/messages.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    first, second = (example.encode() for example in examples)
    assert EventMessage.model_validate_json(second).job_id == decode_job(first).job_id


def queue_arguments(name: str, target: BrokerTarget) -> dict[str, str | int]:
    """Arguments that a queue is declared with."""
    return next(
        dict(queue.arguments) for queue in queues(target.retry_delays) if queue.name == name
    )


def test_a_full_queue_refuses_to_publish_and_drops_nothing(
    clean_rabbitmq: RabbitNode, target: BrokerTarget
) -> None:
    """The definitions set a limit; a full queue rejects jobs until there is space."""
    clean_rabbitmq.control("import_definitions", ROOT / "deploy/rabbitmq/definitions.json")
    assert "ctdeface-limits" in clean_rabbitmq.control("list_policies")
    clean_rabbitmq.control(
        "set_policy",
        "--apply-to",
        "queues",
        "--priority",
        "1",
        "test-limit",
        JOBS,
        '{"max-length": 2}',
    )
    broker = RabbitBroker(target)
    sent = [name for name in (f"case {number}" for number in range(20)) if publishes(broker, name)]
    assert 2 <= len(sent) < 20
    taken = [received(broker)]
    assert broker.settle(taken[0], Ack())
    for _ in sent[1:]:
        taken.append(received(broker))
        assert broker.settle(taken[-1], Ack())
    assert {case_of(each) for each in taken} == set(sent)
    broker.publish(job("room again"))
    clean_rabbitmq.control("clear_policy", "test-limit")
    broker.close()


def publishes(broker: RabbitBroker, name: str) -> bool:
    """Return True if the queue accepts a job."""
    try:
        broker.publish(job(name))
    except BrokerUnavailable:
        return False
    return True


def test_another_declaration_is_explained(target: BrokerTarget) -> None:
    """A queue with other arguments stops the start; the error names both."""
    link = Link(target)
    link.connect(DEADLINE_SECONDS)
    arguments = queue_arguments(JOBS, target) | {"x-delivery-limit": 5}
    with link.fresh_channel() as channel:
        channel.queue_declare(JOBS, durable=True, arguments=arguments)
    link.drop()
    with pytest.raises(
        ConfigurationError, match=rf"{JOBS} exists with another x-delivery-limit .*'100'.*'5'"
    ):
        RabbitBroker(target).publish(job("a"))
    forget_everything(target)


def test_check_says_what_is_missing_and_init_declares_it(target: BrokerTarget) -> None:
    """`check` changes nothing, `init` declares; what AMQP cannot show is mentioned."""
    command = [str(CTDEFACE), "broker", "check", "--url", target.url]
    for _ in range(2):
        before = subprocess.run(command, capture_output=True, text=True, check=False)
        assert before.returncode == 78
        assert f"{JOBS} is missing: run ctdeface broker init" in before.stdout
    subprocess.run(
        [CTDEFACE, "broker", "init", "--url", target.url], capture_output=True, check=True
    )
    after = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (after.returncode, "wrong" in after.stdout) == (0, False)
    assert "consumer_timeout" in after.stdout
    assert "guest:guest" not in after.stdout
    findings = check(replace(target, retry_delays=(30.0, 120.0, 600.0)), create=False)
    assert set(findings.present) == {DEAD, EVENTS, JOBS, *map(retry_queue, (30.0, 120.0, 600.0))}
    forget_everything(replace(target, retry_delays=(30.0, 120.0, 600.0)))


@pytest.mark.parametrize(
    "url", ["amqp://guest:wrong@127.0.0.1:{port}", "amqp://guest:guest@127.0.0.1:{port}/nowhere"]
)
def test_a_wrong_login_is_a_configuration_error(rabbitmq: RabbitNode, url: str) -> None:
    """An unknown password or virtual host stops the start; the password is not printed."""
    broker = RabbitBroker(BrokerTarget(url=url.format(port=rabbitmq.port)))
    with pytest.raises(ConfigurationError, match="refuses the login") as met:
        broker.receive(DEADLINE_SECONDS)
    assert "wrong" not in str(met.value).replace("wrong:", "")


def test_the_connection_is_encrypted_and_both_sides_show_certificates(
    strict: RabbitNode, strict_target: BrokerTarget, certificates: Path
) -> None:
    """Jobs travel over TLS only with the right authority and a client certificate."""
    plain = replace(
        strict_target, url=f"amqps://127.0.0.1:{strict.tls_port}", user="guest", password="guest"
    )
    trusted = replace(plain, ca_file=certificates / "ca.pem")
    shown = replace(
        trusted, cert_file=certificates / "client.pem", key_file=certificates / "client.key"
    )
    broker = RabbitBroker(shown)
    broker.publish(job("a"))
    assert isinstance(broker._link.parameters.ssl_options.context, ssl.SSLContext)
    assert case_of(received(broker)) == "a"
    broker.close()
    for refused in (plain, trusted):
        with pytest.raises(BrokerUnavailable):
            RabbitBroker(refused).receive(1)
    with pytest.raises(ConfigurationError, match="certificates"):
        RabbitBroker(replace(plain, ca_file=certificates / "nothing.pem"))


def test_a_worker_busy_for_longer_than_heartbeat_and_ack_timeout_publishes_once(
    strict: RabbitNode, strict_target: BrokerTarget, tmp_path: Path
) -> None:
    """A redelivered running job has one attempt, one output, one report and one event."""
    broker_settings = {
        "heartbeat": strict_target.heartbeat_seconds,
        "retry_delays": list(strict_target.retry_delays),
    }
    local_service = LocalService(
        folder=tmp_path, service=configured_service(tmp_path, strict.url, broker=broker_settings)
    )
    local_service.service.prepare()
    subscriber = EventSubscriber(replace(strict_target, heartbeat_seconds=60))
    try:
        drop(local_service.spool, "a", "very slow")
        wanted = job_for(local_service.spool, "a")
        local_service.publish(wanted)
        local_service.start()
        local_service.start()
        local_service.until(
            lambda: (
                "Ack" in local_service.logged("job_settled", wanted.job_id)
                and local_service.is_idle()
            )
        )
        settled = local_service.logged("job_settled", wanted.job_id)
        assert (
            settled.count("TooLate"),
            settled.count("Ack"),
            local_service.logged("attempt_begun", wanted.job_id),
        ) == (1, 1, [1])
        assert ends(local_service.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
        assert (
            len(list((local_service.spool.archive / "originals" / "a").iterdir()))
            == len(reports(local_service.spool, "a"))
            == 1
        )
        assert not (local_service.spool.archive / "outputs").exists()
        event = subscriber.next_event(DEADLINE_SECONDS)
        assert event is not None
        assert (event.kind, event.job_id) == (EventKind.RELEASED, wanted.job_id)
    finally:
        local_service.stop()
        subscriber.close()


def test_a_broker_that_is_not_there_is_tried_with_growing_pauses(target: BrokerTarget) -> None:
    """Retries slow down, and no call exceeds its time."""
    tries = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(0.2)
        broker = RabbitBroker(replace(target, url=f"amqp://127.0.0.1:{deaf.getsockname()[1]}"))
        stop = threading.Event()

        def refuse() -> None:
            while not stop.is_set():
                try:
                    deaf.accept()[0].close()
                    tries.append(time.monotonic())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=refuse)
        thread.start()
        started = time.monotonic()
        for _ in range(4):
            with pytest.raises(BrokerUnavailable):
                broker.receive(1.0)
        assert time.monotonic() - started < 6
        stop.set()
        thread.join()
    assert 2 <= len(tries) <= 6
