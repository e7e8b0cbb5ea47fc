"""The users that are shipped for RabbitMQ: each may do its work, and nothing else."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from ctdeface_shared.broker.rabbitmq import RabbitBroker, check
from ctdeface_shared.broker.settlement import Ack, Reject, Retry
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.broker.topology import DEAD, EVENTS, JOBS
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.messages import CaseEvent, EventKind
from tests.integration.rabbitmq_node import RabbitNode, running_node
from tests.integration.test_brokers import DELAY_SECONDS, case_of, job, received, wait_for
from tests.support.service.composed import make_secrets, rabbitmq_settings
from tests.support.service.event_subscriber import EventSubscriber

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the passwords of a deployment, made twice: what is there stays."""
    folder = tmp_path_factory.mktemp("secrets")
    make_secrets(folder)
    first = (folder / "worker-password").read_bytes()
    make_secrets(folder)
    assert (folder / "worker-password").read_bytes() == first
    return folder


@pytest.fixture(scope="module")
def node(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A server with the shipped settings and definitions, as compose.yaml starts it."""
    with running_node(tmp_path_factory.mktemp("users"), *rabbitmq_settings(secrets)) as running:
        yield running


@pytest.fixture(scope="module")
def target(node: RabbitNode, secrets: Path) -> Callable[[str], BrokerTarget]:
    """Makes the target of a user; the administrator creates the queues first."""

    def of(user: str) -> BrokerTarget:
        password = (secrets / f"{user}-password").read_text(encoding="utf-8")
        url = f"amqp://127.0.0.1:{node.port}"
        return BrokerTarget(
            url=url, user=f"ctdeface-{user}", password=password, retry_delays=(DELAY_SECONDS,)
        )

    for user in ("watcher", "worker"):
        broker = RabbitBroker(of(user))
        with pytest.raises(ConfigurationError, match="run ctdeface broker init"):
            broker.depth()
        broker.close()
    assert not check(of("admin"), create=True).wrong
    return of


def test_a_job_goes_its_way_with_two_users_who_may_declare_nothing(
    target: Callable[[str], BrokerTarget],
) -> None:
    """Each user has exactly the permissions that watcher and worker need."""
    watcher, worker = RabbitBroker(target("watcher")), RabbitBroker(target("worker"))
    subscriber = EventSubscriber(target("admin"))
    watcher.publish(job("a"))
    watcher.publish(job("b"))
    assert worker.settle(received(worker), Retry(DELAY_SECONDS))
    assert worker.settle(received(worker), Reject("InvalidMessage"))
    last = received(worker)
    assert (case_of(last), last.attempt) == ("a", 1)
    assert worker.settle(last, Ack())
    worker.announce(
        CaseEvent(
            kind=EventKind.RELEASED, job_id=job("a").job_id, finished_at=job("a").submitted_at
        )
    )
    event = subscriber.next_event(10)
    assert event is not None
    assert event.kind is EventKind.RELEASED
    wait_for(lambda: watcher.depth().dead == 1)
    for each in (watcher, worker, subscriber):
        each.close()


def test_looking_needs_no_rights(target: Callable[[str], BrokerTarget]) -> None:
    """`ctdeface broker check` finds everything in its place, as each user."""
    for user in ("admin", "watcher", "worker"):
        assert not check(target(user), create=False).wrong


FORBIDDEN: dict[
    str,
    tuple[Callable[[pika.adapters.blocking_connection.BlockingChannel], object], tuple[str, ...]],
] = {
    "take jobs": (lambda channel: channel.basic_get(JOBS), ("watcher", "scaler")),
    "read dead letters": (lambda channel: channel.basic_get(DEAD), ("watcher", "worker", "scaler")),
    "empty a queue": (lambda channel: channel.queue_purge(DEAD), ("watcher", "worker", "scaler")),
    "delete a queue": (lambda channel: channel.queue_delete(JOBS), ("watcher", "worker", "scaler")),
    "declare a queue": (
        lambda channel: channel.queue_declare("mine"),
        ("watcher", "worker", "scaler", "admin"),
    ),
    "hear events": (
        lambda channel: channel.queue_bind(JOBS, EVENTS, "#"),
        ("watcher", "worker", "scaler"),
    ),
}


@pytest.mark.parametrize(
    ("what", "user"), [(what, user) for what, (_, users) in FORBIDDEN.items() for user in users]
)
def test_a_user_may_not(what: str, user: str, target: Callable[[str], BrokerTarget]) -> None:
    """The server refuses it with 403."""
    given = target(user)
    credentials = pika.PlainCredentials(given.user, given.password)
    port = int(given.url.rpartition(":")[2])
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(host="127.0.0.1", port=port, credentials=credentials)
    )
    with pytest.raises(ChannelClosedByBroker) as refused:
        FORBIDDEN[what][0](connection.channel())
    connection.close()
    assert refused.value.reply_code == 403


def test_nobody_else_is_let_in(node: RabbitNode, target: Callable[[str], BrokerTarget]) -> None:
    """Guest and wrong passwords are refused; the shipped definitions contain no user."""
    swapped = BrokerTarget(
        url=target("worker").url, user="ctdeface-admin", password=target("worker").password
    )
    for each in (BrokerTarget(url=node.url), swapped):
        with pytest.raises(ConfigurationError, match="refuses the login"):
            check(each, create=False)
    shipped = json.loads((DEPLOY / "rabbitmq/definitions.json").read_text(encoding="utf-8"))
    assert {user["password_hash"] for user in shipped["users"]} == {""}


def test_the_server_waits_longer_for_a_worker_than_a_job_may_take(node: RabbitNode) -> None:
    """`consumer_timeout` is in force, and the limits of the policies."""
    from ctdeface_shared.settings.loading import Settings

    milliseconds = int(
        node.control("eval", "application:get_env(rabbit, consumer_timeout).")
        .partition(",")[2]
        .rstrip("}\n. ")
    )
    assert milliseconds / 1000 > Settings().work.job_timeout
    assert {"ctdeface-limits", "ctdeface-dead"} <= set(node.control("list_policies").split())
