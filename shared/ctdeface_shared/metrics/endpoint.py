"""Serves /metrics, /healthz and /readyz from a small thread; whatever a request does, no job hears of it."""

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
"""A client that is slower than this is let go."""

Problems: TypeAlias = Callable[[], Mapping[str, str]]

_log = logs.logger(__name__)


class _Server(ThreadingMixIn, WSGIServer):
    """One short-lived thread per request, so that a slow client holds up nobody."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Log that a request broke off, without the traceback that the standard library prints."""
        del request, client_address
        _log.warning("metrics_request_failed")


class _Quiet(WSGIRequestHandler):
    """Writes no access log."""

    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen; port `OFF` turns it off. With `tls` only https is spoken."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: MetricsSection, port: int) -> Self:
        """Read what the settings say about a port.

        Raises:
            ConfigurationError: the certificate, its key or the authorities cannot be used.
        """
        return cls(
            host=settings.host, port=port, tls=_encryption(settings) if port != OFF else None
        )


@contextmanager
def exported(address: Address, registry: CollectorRegistry, probe: Probe) -> Iterator[None]:
    """Serve a registry and what a probe finds for the time of the block, unless it is turned off.

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
    """
    if address.port == OFF:
        yield
        return
    with served(address.host, address.port, registry, probe.problems, address.tls), probe:
        yield


@contextmanager
def served(
    host: str,
    port: int,
    registry: CollectorRegistry,
    problems: Problems,
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Serve for the time of the block, and give the port, which the system chooses if it is 0.

    Args:
        host: address or name to listen at.
        port: where.
        registry: what /metrics shows.
        problems: what keeps the service from being ready, by name; quick, for it is asked with each
            request.
        tls: how https is spoken; None speaks http.

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
    """
    server = _listening(host, port)
    server.set_app(application(registry, problems))
    if (
        tls is not None
    ):  # hands are shaken in the thread of each request, so that a slow client holds up nobody
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
    """Make what answers requests."""
    metrics: WSGIApplication = make_wsgi_app(registry)

    def ready(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        found = problems()
        status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
        return _say(start, status, {"ready": not found, "problems": dict(found)})

    def alive(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return _say(start, HTTPStatus.OK, {"alive": True})

    places: Mapping[str, WSGIApplication] = {
        "/metrics": metrics,
        "/healthz": alive,
        "/readyz": ready,
    }

    def answer(environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        place = places.get(environment.get("PATH_INFO", ""))
        if place is None:
            return _say(start, HTTPStatus.NOT_FOUND, {"there_is": sorted(places)})
        if environment["REQUEST_METHOD"] != "GET":
            return _say(start, HTTPStatus.METHOD_NOT_ALLOWED, {"there_is": ["GET"]})
        found = boundary(partial(place, environment, start))
        return (
            _say(start, HTTPStatus.INTERNAL_SERVER_ERROR, {"failed": True})
            if isinstance(found, Exception)
            else found
        )

    return answer


def _say(
    start: StartResponse, status: HTTPStatus, content: Mapping[str, object]
) -> Iterable[bytes]:
    body = json.dumps(content).encode() + b"\n"
    start(
        f"{status.value} {status.phrase}",
        [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
    )
    return [body]


def _encryption(settings: MetricsSection) -> ssl.SSLContext | None:
    if settings.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file)
        if settings.client_ca_file is not None:
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl's own errors are such as well
        raise ConfigurationError(
            f"metrics.cert_file, key_file or client_ca_file cannot be used: {error.strerror or error}"
        ) from None
    return context


def _listening(host: str, port: int) -> _Server:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        kind = type("_Server", (_Server,), {"address_family": family})
        made: _Server = kind((address[0], port), _Quiet)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} at {host} is taken: choose a free one with --metrics-port (0: no metrics), or in the table [metrics]"
        else:
            message = f"metrics cannot be served at {host}, port {port} ({error.strerror}): correct metrics.host or the port"
        raise ConfigurationError(message) from None
    return made
