"""HTTP server for /metrics, /healthz and /readyz.

It runs in threads of its own, so requests cannot disturb a job.
"""

import errno
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Self, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from ctdeface_shared import logs
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.metrics.probe import Probe
from ctdeface_shared.settings.sections import OFF, MetricsSection

REQUEST_SECONDS = 10.0
"""Timeout of a request."""

Problems: TypeAlias = Callable[[], Mapping[str, str]]
"""Returns the current problems of a service, by the name of the check."""

_log = logs.logger(__name__)


class _Server(ThreadingMixIn, WSGIServer):
    """A server with one thread per request.

    A slow client therefore delays no other.
    """

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a failed request without the traceback of the standard library."""
        del request, client_address
        _log.warning("metrics_request_failed")


class _Handler(WSGIRequestHandler):
    """A request handler without an access log."""

    timeout = REQUEST_SECONDS

    def log_message(self, *_: object) -> None:
        """Log nothing."""


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
    with serve(address.host, address.port, registry, probe.problems, address.tls), probe:
        yield


@contextmanager
def serve(
    host: str,
    port: int,
    registry: CollectorRegistry,
    problems: Problems,
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Serve during the block, and yield the port.

    Args:
        host: address or name on which to listen.
        port: TCP port; 0 for a free one.
        registry: the metrics of /metrics.
        problems: returns what makes the service unready, by name; it is called for each request, so
            it must be fast.
        tls: settings of https; None for http.

    Raises:
        ConfigurationError: the port is taken, or the address does not belong to this machine.
    """
    server = _open_server(host, port)
    server.set_app(application(registry, problems))
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


def application(registry: CollectorRegistry, problems: Problems) -> WSGIApplication:
    """Return the WSGI application of the endpoint."""
    metrics: WSGIApplication = make_wsgi_app(registry)

    def ready(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        found = problems()
        status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
        return _respond(start, status, {"ready": not found, "problems": dict(found)})

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


def _open_server(host: str, port: int) -> _Server:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server_class = type("_Server", (_Server,), {"address_family": family})
        server: _Server = server_class((address[0], port), _Handler)
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
