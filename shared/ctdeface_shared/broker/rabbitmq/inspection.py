"""Checks of exchanges and queues in RabbitMQ."""

import re

from pika.exceptions import ChannelClosedByBroker

from ctdeface_shared.broker.protocols import Findings
from ctdeface_shared.broker.rabbitmq.declaration import NotPermitted, declare, explained
from ctdeface_shared.broker.rabbitmq.link import Link
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.broker.topology import EXCHANGES, Exchange, Queue, queues
from ctdeface_shared.errors import ConfigurationError

WAIT_SECONDS = 5.0
OLDEST = (3, 10)
NOT_SEEN = (
    "policies that change limits or lifetimes of the queues",
    "consumer_timeout: it should be longer than work.job_timeout",
    "the feature flag stream_queue, which at-least-once dead letters need",
    "memory and disk alarms, and the number of nodes that hold each queue",
)
"""What AMQP does not show, only the management API or `rabbitmqctl`."""
_NOT_FOUND = 404


def check(target: BrokerTarget, *, create: bool) -> Findings:
    """Compare the declared exchanges and queues with the required ones.

    Args:
        target: the server.
        create: declare what is missing.

    Raises:
        BrokerUnavailable: the server cannot be reached.
        ConfigurationError: it refuses the login.
    """
    link = Link(target)
    try:
        link.connect(WAIT_SECONDS)
        version = link.version
        wrong = (
            []
            if _at_least(version, OLDEST)
            else [f"RabbitMQ {version} is older than {OLDEST[0]}.{OLDEST[1]}"]
        )
        present = []
        wanted: tuple[Exchange | Queue, ...] = (*EXCHANGES, *queues(target.retry_delays))
        for item in wanted:
            complaint = _complaint(link, item, create=create)
            present += [] if complaint else [item.name]
            wrong += [complaint] if complaint else []
        return Findings(
            server=f"RabbitMQ {version}",
            present=tuple(present),
            wrong=tuple(wrong),
            not_seen=NOT_SEEN,
        )
    finally:
        link.drop()


def _complaint(link: Link, item: Exchange | Queue, *, create: bool) -> str | None:
    """Return what is wrong with an exchange or queue, or None.

    A passive declaration comes first, because a plain one would create what is missing. A refusal
    closes the channel, so each declaration has its own.
    """
    if not create:
        try:
            with link.fresh_channel() as channel:
                if isinstance(item, Queue):
                    channel.queue_declare(item.name, passive=True)
                else:
                    channel.exchange_declare(item.name, passive=True)
        except ChannelClosedByBroker as error:
            return (
                f"{item.name} is missing: run ctdeface broker init"
                if error.reply_code == _NOT_FOUND
                else explained(item.name, error)
            )
    try:
        with link.fresh_channel() as channel:
            declare(channel, *(((), (item,)) if isinstance(item, Queue) else ((item,), ())))
    except NotPermitted as error:
        return str(error) if create else None  # it exists; a user with few rights sees no more
    except ConfigurationError as error:
        return str(error)
    return None


def _at_least(version: str, least: tuple[int, int]) -> bool:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return numbers >= least
