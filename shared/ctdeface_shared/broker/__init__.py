"""The queue between watcher and workers."""

from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.broker.target import BrokerTarget, file_of, split
from ctdeface_shared.errors import ConfigurationError

__all__ = ["open_broker"]


def open_broker(target: BrokerTarget) -> Broker:
    """Open the queue of a URL.

    The first call of a method connects to RabbitMQ.

    Raises:
        ConfigurationError: the URL is not a broker URL, its file cannot be used, or the client
            library is not installed.
        BrokerUnavailable: the file of the embedded queue cannot be opened right now.
    """
    if split(target.url).scheme == "sqlite":
        from ctdeface_shared.broker.sqlite import SqliteBroker

        return SqliteBroker(file_of(target.url), lease_seconds=target.lease_seconds)
    try:
        from ctdeface_shared.broker.rabbitmq import RabbitBroker
    except ModuleNotFoundError as error:
        if error.name != "pika":
            raise
        raise ConfigurationError(
            "RabbitMQ needs pika, which is not installed: pip install 'ctdeface[watcher]'"
        ) from None
    return RabbitBroker(target)
