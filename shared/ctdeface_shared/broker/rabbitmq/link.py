"""One connection to RabbitMQ that is made again after it broke, with growing pauses in between."""

import random
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from ctdeface_shared.broker.rabbitmq.declaration import NotPermitted, declare
from ctdeface_shared.broker.target import BrokerTarget, masked, split
from ctdeface_shared.broker.topology import EXCHANGES, Queue, queues
from ctdeface_shared.errors import BrokerUnavailable, ConfigurationError

_PORTS = {"amqp": 5672, "amqps": 5671}
_SHORTEST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_BLOCKED_SECONDS = 120.0
_NOT_FOUND = 404
_NAMES_ON_DISK_SECONDS = 1.0
"""RabbitMQ (3.10 up) confirms a new quorum queue, and jobs in it, half a second before its name is on the disk."""
_REFUSED = (AuthenticationError, ProbableAuthenticationError, ProbableAccessDeniedError)


class Link:
    """The connection and its main channel. `epoch` counts connections and channels, so that an old delivery is told from a new one."""

    def __init__(self, target: BrokerTarget) -> None:
        """Prepare; nothing is sent before the first `channel`.

        Raises:
            ConfigurationError: URL, credentials or certificates cannot be used.
        """
        self.epoch = 0
        self.parameters = parameters_of(target)
        self._target = target
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._ever_connected = False
        self._pause_seconds = 0.0
        self._next_try = 0.0
        self._why = ""

    @property
    def is_open(self) -> bool:
        """Whether connection and main channel are usable as far as we know."""
        return bool(
            self._connection
            and self._connection.is_open
            and self._channel
            and self._channel.is_open
        )

    def channel(self, patience_seconds: float) -> BlockingChannel:
        """Return the main channel, with publisher confirms and prefetch 1, on a connection that is made if there is none.

        Raises:
            BrokerUnavailable: no connection within our patience.
            ConfigurationError: we are not let in, or a queue is declared otherwise.
        """
        if not self.is_open:
            self.connect(patience_seconds)
            try:
                with self.errors_named():
                    self._declare_all()
                    self._channel = self._connection_now().channel()
                    self._channel.confirm_delivery()
                    self._channel.basic_qos(prefetch_count=1)
            except ConfigurationError:
                self.drop()
                raise
        if self._channel is None:
            raise BrokerUnavailable("there is no connection to the queue right now")
        return self._channel

    def _declare_all(self) -> None:
        """Declare everything, and wait until what is new would outlive a power cut: nothing may be confirmed into it before.

        A user who may declare nothing must find every queue there.
        """
        wanted = queues(self._target.retry_delays)
        misses = self._misses(wanted)
        try:
            with self.fresh_channel() as channel:
                declare(channel, EXCHANGES, wanted)
        except NotPermitted:
            if misses:
                raise
        if misses:
            time.sleep(_NAMES_ON_DISK_SECONDS)

    def _misses(self, wanted: Sequence[Queue]) -> bool:
        """Whether one of the queues is not there."""
        try:
            with self.fresh_channel() as look:
                for queue in wanted:
                    look.queue_declare(queue.name, passive=True)
        except ChannelClosedByBroker as error:
            return bool(error.reply_code == _NOT_FOUND)
        return False

    def connect(self, patience_seconds: float) -> None:
        """Make a new connection, waiting first as long as earlier failures ask for.

        Raises:
            BrokerUnavailable: no connection within our patience.
            ConfigurationError: we are not let in.
        """
        deadline = time.monotonic() + patience_seconds
        self.drop()
        while self._connection is None:
            wait = self._next_try - time.monotonic()
            if wait > max(deadline - time.monotonic(), 0):
                time.sleep(max(deadline - time.monotonic(), 0))
                raise BrokerUnavailable(f"no connection to {masked(self._target.url)}{self._why}")
            time.sleep(max(wait, 0))
            self._pause_seconds = min(
                max(self._pause_seconds * 2, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS
            )
            self._next_try = time.monotonic() + self._pause_seconds * random.uniform(0.5, 1.0)
            try:
                with self.errors_named():
                    self._connection = pika.BlockingConnection(self.parameters)
            except BrokerUnavailable:
                continue
        self._pause_seconds = 0.0
        self._ever_connected = True

    @contextmanager
    def fresh_channel(self) -> Iterator[BlockingChannel]:
        """Open a channel for one question that the server may answer by closing it; needs a connection."""
        channel = self._connection_now().channel()
        try:
            yield channel
        finally:
            if channel.is_open:
                channel.close()

    def side_channel(self, patience_seconds: float) -> BlockingChannel:
        """Open one more channel; closing it gives back whatever it got and did not acknowledge."""
        self.channel(patience_seconds)
        with self.errors_named():
            channel: BlockingChannel = self._connection_now().channel()
            channel.confirm_delivery()
            return channel

    def pump(self, seconds: float) -> None:
        """Send heartbeats and take in what arrives, for so long or until something arrived.

        Raises:
            BrokerUnavailable: the connection broke, or the server closed the channel.
        """
        with self.errors_named():
            self._connection_now().process_data_events(time_limit=seconds)
        if not self.is_open:
            self.drop()
            raise BrokerUnavailable(
                "the server closed the channel, for example because a job ran longer than its consumer_timeout"
            )

    def drop(self) -> None:
        """Forget the connection; everything unsettled on it is delivered again."""
        connection, self._connection, self._channel = self._connection, None, None
        self.epoch += 1
        if connection and connection.is_open:
            try:
                connection.close()
            except (AMQPError, OSError):
                return  # it was broken, which is why it is dropped

    @property
    def version(self) -> str:
        """The server's version as it says itself."""
        connection = self._connection_now()
        return str(connection._impl.server_properties.get("version", ""))

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Turn pika's and the system's errors into ours, and drop the connection over them, except over a mere refusal to publish."""
        try:
            yield
        except NackError as error:
            raise BrokerUnavailable(
                "the server did not take the message: its queue is full, or it could not store it"
            ) from error
        except _REFUSED as error:
            self.drop()
            if not self._ever_connected:
                raise ConfigurationError(
                    f"{masked(self._target.url)} does not let us in: check user, password, virtual host and permissions"
                ) from error
            raise BrokerUnavailable("the server does not let us in any more") from error
        except (AMQPError, OSError) as error:
            self.drop()
            self._why = f" ({_reason(error)})"
            raise BrokerUnavailable(
                f"the connection to {masked(self._target.url)} failed{self._why}"
            ) from error

    def _connection_now(self) -> pika.BlockingConnection:
        if self._connection is None:
            raise BrokerUnavailable("there is no connection to the queue right now")
        return self._connection


def _reason(error: BaseException) -> str:
    """Name the innermost cause that pika gives; the texts may quote addresses, never credentials."""
    inner = error.args[0] if error.args else None
    if isinstance(inner, BaseException):
        return _reason(inner)
    nested = getattr(inner, "exception", None)
    return (
        _reason(nested)
        if isinstance(nested, BaseException)
        else f"{type(error).__name__}: {error}".removesuffix(": ")
    )


def parameters_of(target: BrokerTarget) -> pika.ConnectionParameters:
    """Read URL, credentials and certificates into pika's parameters.

    Raises:
        ConfigurationError: something of it is missing or cannot be used.
    """
    parts = split(target.url)
    user = target.user or (unquote(parts.username) if parts.username else None)
    password = target.password or (unquote(parts.password) if parts.password else None)
    by_certificate = user is None and target.cert_file is not None
    plain = pika.PlainCredentials(user or "guest", password or "guest")
    return pika.ConnectionParameters(
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        virtual_host=unquote(parts.path.removeprefix("/")) or "/",
        credentials=pika.credentials.ExternalCredentials() if by_certificate else plain,
        ssl_options=pika.SSLOptions(_tls(target), server_hostname=parts.hostname)
        if parts.scheme == "amqps"
        else None,
        heartbeat=target.heartbeat_seconds,
        socket_timeout=_CONNECT_SECONDS,
        stack_timeout=_CONNECT_SECONDS * 1.5,
        blocked_connection_timeout=_BLOCKED_SECONDS,
        client_properties={"connection_name": "ctdeface"},
    )


def _tls(target: BrokerTarget) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
        if target.cert_file:
            context.load_cert_chain(target.cert_file, target.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the certificates for the broker cannot be used: {error}"
        ) from error
    return context
