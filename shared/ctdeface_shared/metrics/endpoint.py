"""HTTP server for /metrics, /healthz and /readyz.

It runs in threads of its own, so requests cannot disturb a job. No kept server has both a deadline
for a whole request and a limit of connections, see docs/decisions/0017.
"""

import errno
import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from socketserver import ThreadingMixIn
from time import monotonic
from typing import Self, TextIO, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from ctdeface_shared import logs
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.metrics.probe import Probe
from ctdeface_shared.settings.sections import OFF, MetricsSection

_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]
Problems: TypeAlias = Callable[[], Mapping[str, str]]
"""Returns the current problems of a service, by the name of the check."""

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What clients may use; they are not trusted.

    Attributes:
        seconds: time from the connection to the end of the answer.
        connections: open connections; a further one ends the oldest.
        request_bytes: maximum size of a request.
    """

    seconds: float = 10.0
    connections: int = 32
    request_bytes: int = 16_384


class _Server(ThreadingMixIn, WSGIServer):
    """A server with one thread per connection, and limits for all of them.

    A slow client delays no other, and cannot stay by sending a byte now and then.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], limits: ConnectionLimits) -> None:
        """Listen at an address.

        Raises:
            OSError: it cannot be used.
        """
        self.limits = limits
        self._deadlines: dict[socket.socket, float] = {}  # of open connections, oldest first
        self._ended: set[socket.socket] = set()
        self._alone = threading.Lock()
        super().__init__(address, _Handler)

    def verify_request(self, request: _Request, client_address: object) -> bool:
        """Admit a connection.

        At the limit the oldest ends first, so that a scrape is answered while others only hold
        their connections. Threads of ended ones that are still there count as well.
        """
        del client_address
        with self._alone:
            if len(self._deadlines) >= 2 * self.limits.connections:
                return False
            waiting = [one for one in self._deadlines if one not in self._ended]
            if len(waiting) >= self.limits.connections:
                self._end(waiting[0])
            self._deadlines[_socket(request)] = monotonic() + self.limits.seconds
        return True

    def service_actions(self) -> None:
        """End connections whose time is over."""
        with self._alone:
            now = monotonic()
            for connection, deadline in self._deadlines.items():
                if deadline <= now:
                    self._end(connection)

    def close_request(self, request: _Request) -> None:
        """Close a connection."""
        with self._alone:
            self._deadlines.pop(_socket(request), None)
            self._ended.discard(_socket(request))
        super().close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a failed request without the traceback of the standard library."""
        del request, client_address
        _log.warning("metrics_request_failed")

    def _end(self, connection: socket.socket) -> None:
        """Wake the thread of a connection with an end of its input, also under TLS."""
        self._ended.add(connection)
        with suppress(OSError):  # the client has just left
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    """A request handler without an access log."""

    server: _Server

    def setup(self) -> None:
        """Limit the time of each read and the size of the request."""
        self.request.settimeout(self.server.limits.seconds)
        super().setup()
        self.rfile = _FirstBytes(self.rfile, self.server.limits.request_bytes)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def get_stderr(self) -> TextIO:
        """Return a stream that is thrown away; `handle_error` logs what fails."""
        return io.StringIO()


class _FirstBytes(io.BufferedIOBase):
    """A stream of limited length."""

    def __init__(self, stream: io.BufferedIOBase, left: int) -> None:
        """Limit a stream to so many bytes."""
        self._stream = stream
        self._left = left

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes; size -1 reads all that are allowed."""
        return self._counted(self._stream.read, size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line."""
        return self._counted(self._stream.readline, size)

    def close(self) -> None:
        """Close the stream as well."""
        self._stream.close()
        super().close()

    def _counted(self, read: Callable[[int], bytes], size: int | None) -> bytes:
        """Read and count.

        Raises:
            OSError: more is read than allowed.
        """
        if not self._left:
            raise OSError(errno.EMSGSIZE, "the request is too large")
        data = read(self._left if size is None or size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _socket(request: _Request) -> socket.socket:
    """Return the connection of a request; this server has no datagrams."""
    if not isinstance(request, socket.socket):
        raise TypeError("a connection is required")
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address of the endpoint.

    Attributes:
        host: address or name on which to listen.
        port: TCP port; `OFF` turns the endpoint off.
        tls: settings of https; None for http.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: MetricsSection, port: int) -> Self:
        """Return the address of a port, by the settings.

        Raises:
            ConfigurationError: the certificate, its key or the authorities cannot be used.
        """
        tls = _tls_context(settings) if port != OFF else None
        return cls(host=settings.host, port=port, tls=tls)


@contextmanager
def serve_metrics(address: Address, registry: CollectorRegistry, probe: Probe) -> Iterator[None]:
    """Run probe and endpoint during the block, unless turned off.

    Raises:
        ConfigurationError: the port is taken, or the address does not belong to this machine.
    """
    if address.port == OFF:
        yield
        return
    with serve(address, registry, probe.problems, warnings=probe.warnings), probe:
        yield


@contextmanager
def serve(
    address: Address,
    registry: CollectorRegistry,
    problems: Problems,
    limits: ConnectionLimits = ConnectionLimits(),
    warnings: Problems = dict,
) -> Iterator[int]:
    """Serve during the block, and yield the port.

    Args:
        address: where to listen; port 0 for a free one.
        registry: the metrics of /metrics.
        problems: returns what makes the service unready, by name; it is called for each request, so
            it must be fast.
        limits: of its connections.
        warnings: like `problems`, for what leaves the service ready.

    Raises:
        ConfigurationError: the port is taken, or the address does not belong to this machine.
    """
    server, tls = _open_server(address, limits), address.tls
    server.set_app(application(registry, problems, warnings))
    if tls is not None:
        # The handshake happens in the thread of each request, so a slow client delays no other.
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(
        target=partial(server.serve_forever, poll_interval=0.1), name="metrics", daemon=True
    )
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def application(
    registry: CollectorRegistry, problems: Problems, warnings: Problems = dict
) -> WSGIApplication:
    """Return the WSGI application of the endpoint."""
    metrics: WSGIApplication = make_wsgi_app(registry)

    def ready(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        found = problems()
        status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
        content: dict[str, object] = {"ready": not found, "problems": dict(found)}
        attention = dict(warnings())
        if attention:
            content["warnings"] = attention
        return _respond(start, status, content)

    def alive(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return _respond(start, HTTPStatus.OK, {"alive": True})

    pages: Mapping[str, WSGIApplication] = {
        "/metrics": metrics,
        "/healthz": alive,
        "/readyz": ready,
    }

    def answer(environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        page = pages.get(environment.get("PATH_INFO", ""))
        if page is None:
            return _respond(start, HTTPStatus.NOT_FOUND, {"there_is": sorted(pages)})
        if environment["REQUEST_METHOD"] != "GET":
            return _respond(start, HTTPStatus.METHOD_NOT_ALLOWED, {"there_is": ["GET"]})
        body = boundary(partial(page, environment, start))
        if isinstance(body, Exception):
            return _respond(start, HTTPStatus.INTERNAL_SERVER_ERROR, {"failed": True})
        return body

    return answer


def _respond(
    start: StartResponse, status: HTTPStatus, content: Mapping[str, object]
) -> Iterable[bytes]:
    body = json.dumps(content).encode() + b"\n"
    start(
        f"{status.value} {status.phrase}",
        [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
    )
    return [body]


def _tls_context(settings: MetricsSection) -> ssl.SSLContext | None:
    if settings.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file)
        if settings.client_ca_file is not None:
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # includes ssl.SSLError
        raise ConfigurationError(
            "metrics.cert_file, metrics.key_file or metrics.client_ca_file cannot be used: "
            f"{error.strerror or error}"
        ) from None
    return context


def _open_server(address: Address, limits: ConnectionLimits) -> _Server:
    host, port = address.host, address.port
    try:
        family, _, _, _, found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server_class = type("_Server", (_Server,), {"address_family": family})
        server: _Server = server_class((found[0], port), limits)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = (
                f"port {port} at {host} is taken: choose a free one with --metrics-port "
                "(0: no metrics), or in the table [metrics]"
            )
        else:
            message = (
                f"metrics cannot be served at {host}, port {port} ({error.strerror}): "
                "correct metrics.host or the port"
            )
        raise ConfigurationError(message) from None
    return server
