"""A connection to RabbitMQ that reconnects with growing pauses."""

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
"""Time until the name of a new quorum queue is on the disk.

RabbitMQ (3.10 and later) confirms the queue, and jobs in it, half a second earlier.
"""
_REFUSED = (AuthenticationError, ProbableAuthenticationError, ProbableAccessDeniedError)


class Link:
    """The connection and its main channel.

    Attributes:
        epoch: number of connections so far, which distinguishes an old delivery from a new one.
        parameters: pika's parameters of the connection.
    """

    def __init__(self, target: BrokerTarget) -> None:
        """Prepare the connection, which `channel` opens.

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
        """Return whether connection and main channel seem usable."""
        return bool(
            self._connection
            and self._connection.is_open
            and self._channel
            and self._channel.is_open
        )

    def channel(self, wait_seconds: float) -> BlockingChannel:
        """Return the main channel, with publisher confirms and prefetch 1.

        Args:
            wait_seconds: maximum wait for a connection if it is not open.

        Raises:
            BrokerUnavailable: the server was not reachable within that time.
            ConfigurationError: the login is refused, or a queue exists with other arguments.
        """
        if not self.is_open:
            self.connect(wait_seconds)
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
            raise BrokerUnavailable("the connection to the queue is not open")
        return self._channel

    def _declare_all(self) -> None:
        """Declare everything, and wait until new queues are durable.

        Before that, a confirmed job would not survive a power cut. For a user without the
        permission to declare, every queue must exist already.
        """
        wanted = queues(self._target.retry_delays)
        some_missing = self._some_missing(wanted)
        try:
            with self.fresh_channel() as channel:
                declare(channel, EXCHANGES, wanted)
        except NotPermitted:
            if some_missing:
                raise
        if some_missing:
            time.sleep(_NAMES_ON_DISK_SECONDS)

    def _some_missing(self, wanted: Sequence[Queue]) -> bool:
        """Return whether one of the queues does not exist."""
        try:
            with self.fresh_channel() as channel:
                for queue in wanted:
                    channel.queue_declare(queue.name, passive=True)
        except ChannelClosedByBroker as error:
            return bool(error.reply_code == _NOT_FOUND)
        return False

    def connect(self, wait_seconds: float) -> None:
        """Open a new connection, after a pause if earlier ones failed.

        Args:
            wait_seconds: how long to try.

        Raises:
            BrokerUnavailable: the server was not reachable within that time.
            ConfigurationError: the login is refused.
        """
        deadline = time.monotonic() + wait_seconds
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
            jitter = random.uniform(0.5, 1.0)  # noqa: S311  spreads the load; it is not a secret
            self._next_try = time.monotonic() + self._pause_seconds * jitter
            try:
                with self.errors_named():
                    self._connection = pika.BlockingConnection(self.parameters)
            except BrokerUnavailable:
                continue
        self._pause_seconds = 0.0
        self._ever_connected = True

    @contextmanager
    def fresh_channel(self) -> Iterator[BlockingChannel]:
        """Open a channel for a request that may fail.

        The server refuses a request by closing its channel.

        Raises:
            BrokerUnavailable: the connection is not open.
        """
        channel = self._connection_now().channel()
        try:
            yield channel
        finally:
            if channel.is_open:
                channel.close()

    def side_channel(self, wait_seconds: float) -> BlockingChannel:
        """Open another channel; closing it requeues its unacknowledged messages."""
        self.channel(wait_seconds)
        with self.errors_named():
            channel: BlockingChannel = self._connection_now().channel()
            channel.confirm_delivery()
            return channel

    def pump(self, seconds: float) -> None:
        """Send heartbeats and process input until something arrives.

        Args:
            seconds: maximum duration.

        Raises:
            BrokerUnavailable: the connection broke, or the server closed the channel.
        """
        with self.errors_named():
            self._connection_now().process_data_events(time_limit=seconds)
        if not self.is_open:
            self.drop()
            raise BrokerUnavailable(
                "the server closed the channel, for example because a job ran longer than "
                "the server's consumer_timeout: make that longer than work.job_timeout"
            )

    def drop(self) -> None:
        """Close the connection; unsettled deliveries are delivered again."""
        connection, self._connection, self._channel = self._connection, None, None
        self.epoch += 1
        if connection and connection.is_open:
            try:
                connection.close()
            except (AMQPError, OSError):
                return  # already broken

    @property
    def version(self) -> str:
        """Return the version that the server reports."""
        connection = self._connection_now()._impl  # noqa: SLF001  pika has no public attribute
        properties = connection.server_properties
        return str(properties.get("version", ""))

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Translate errors of pika and the system.

        The connection is dropped, except when the server only rejects a message.

        Raises:
            BrokerUnavailable: the server rejected a message, or the connection failed.
            ConfigurationError: the first login was refused.
        """
        try:
            yield
        except NackError as error:
            raise BrokerUnavailable(
                "the server rejected the message: its queue is full, or it could not store it"
            ) from error
        except _REFUSED as error:
            self.drop()
            if not self._ever_connected:
                raise ConfigurationError(
                    f"{masked(self._target.url)} refuses the login: check user, password, "
                    "virtual host and permissions"
                ) from error
            raise BrokerUnavailable("the server refuses the login now") from error
        except (AMQPError, OSError) as error:
            self.drop()
            self._why = f" ({_reason(error)})"
            raise BrokerUnavailable(
                f"the connection to {masked(self._target.url)} failed{self._why}"
            ) from error

    def _connection_now(self) -> pika.BlockingConnection:
        if self._connection is None:
            raise BrokerUnavailable("the connection to the queue is not open")
        return self._connection


def _reason(error: BaseException) -> str:
    """Return the innermost cause that pika names.

    Its text may contain addresses, but not credentials.
    """
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
    """Return pika's parameters from URL, credentials and certificates.

    Raises:
        ConfigurationError: one of them is missing or cannot be used.
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
