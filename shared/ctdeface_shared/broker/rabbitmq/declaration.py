"""Declaration of exchanges and queues in RabbitMQ."""

import re
from collections.abc import Sequence

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from ctdeface_shared.broker.topology import Exchange, Queue
from ctdeface_shared.errors import ConfigurationError

_ACCESS_REFUSED = 403
_PRECONDITION_FAILED = 406


class NotPermitted(ConfigurationError):
    """The user in RabbitMQ lacks the permission to declare this."""


def declare(
    channel: BlockingChannel, exchanges: Sequence[Exchange], wanted: Sequence[Queue]
) -> None:
    """Declare exchanges and queues that are missing.

    Raises:
        NotPermitted: the user lacks the permission to declare one.
        ConfigurationError: one exists with other arguments.
    """
    name = ""
    try:
        for exchange in exchanges:
            name = exchange.name
            channel.exchange_declare(name, exchange.kind, durable=True)
        for queue in wanted:
            name = queue.name
            channel.queue_declare(name, durable=True, arguments=dict(queue.arguments))
            if queue.bound_to:
                channel.queue_bind(name, queue.bound_to, routing_key=name)
    except ChannelClosedByBroker as error:
        kind = NotPermitted if error.reply_code == _ACCESS_REFUSED else ConfigurationError
        raise kind(explained(name, error)) from error


def explained(name: str, error: ChannelClosedByBroker) -> str:
    """Explain a refused declaration and what to do about it."""
    differs = re.search(r"inequivalent arg '([^']+)'.*?: (received .*)", error.reply_text)
    if error.reply_code == _PRECONDITION_FAILED and differs:
        return (
            f"{name} exists with another {differs[1]} ({differs[2]}): let its jobs finish, "
            "delete it on the server and start again, or restore the setting"
        )
    advice = (
        ": run ctdeface broker init as a user with the permission to declare"
        if error.reply_code == _ACCESS_REFUSED
        else ""
    )
    return f"{name} cannot be declared: {error.reply_text} ({error.reply_code}){advice}"
