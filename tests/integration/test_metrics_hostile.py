"""Clients that hold connections, send slowly or send much are ended; scrapes go on."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import pytest
from prometheus_client import CollectorRegistry, Gauge

from ctdeface_shared.metrics.endpoint import Address, ConnectionLimits, serve
from ctdeface_shared.settings.sections import MetricsSection
from tests.integration.test_metrics_endpoint import FREE, nothing
from tests.integration.test_rabbitmq import CERTIFICATES
from tests.support.service.scrapes import HOST, get

LIMITS = ConnectionLimits(seconds=1.0, connections=8, request_bytes=4096)
PATIENT = replace(LIMITS, seconds=60.0)
SLOW = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 1000


@pytest.fixture(params=["http", "https"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Where the pages are served, with a certificate of our own or without."""
    if request.param == "http":
        return FREE
    subprocess.run(
        ["sh", "-e"], input=CERTIFICATES, text=True, cwd=tmp_path, check=True, capture_output=True
    )
    settings = MetricsSection(cert_file=tmp_path / "server.pem", key_file=tmp_path / "server.key")
    return replace(FREE, tls=Address.of(settings, 1).tls)


def connect(port: int, address: Address) -> socket.socket:
    """Open a connection, encrypted where that is required."""
    made = socket.create_connection((HOST, port), timeout=10)
    if address.tls is None:
        return made
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return client.wrap_socket(made)


def seconds_until_ended(connection: socket.socket, data: bytes) -> float:
    """Send a byte every 0.05 s until the server ends the connection."""
    begun = monotonic()
    connection.settimeout(0.05)
    for byte in data:
        try:
            connection.sendall(bytes([byte]))
            if not connection.recv(1):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return monotonic() - begun


def test_a_byte_now_and_then_does_not_hold_a_connection(address: Address) -> None:
    """The deadline is that of the whole request, not of each read."""
    with (
        serve(address, CollectorRegistry(), nothing, LIMITS) as port,
        closing(connect(port, address)) as slow,
    ):
        assert 0.5 < seconds_until_ended(slow, SLOW) < 3.0


def test_a_client_that_never_reads_its_answer_is_ended(address: Address) -> None:
    """Neither its thread nor its descriptor stays, although the page is still being sent."""
    registry = CollectorRegistry()
    Gauge("large", "x" * 20_000_000, registry=registry)
    with (
        serve(address, registry, nothing, LIMITS) as port,
        closing(connect(port, address)) as deaf,
    ):
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        wait_until_open(lambda count: count == 1, port)
        wait_until_open(lambda count: count == 0, port)


def open_connections(port: int) -> int:
    """Count this process's connections at the server's side of a port."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    ours = set[str]()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            ours.add(str(descriptor.readlink()))
    parts = [line.split() for line in lines]
    return sum(
        part[1].endswith(f":{port:04X}") and part[3] != "0A" and f"socket:[{part[9]}]" in ours
        for part in parts
    )


def wait_until_open(holds: Callable[[int], bool], port: int) -> None:
    """Wait until the number of the server's connections fits."""
    deadline = monotonic() + 10
    while not holds(open_connections(port)):
        assert monotonic() < deadline
        sleep(0.05)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Closes connections that a test holds."""
    with ExitStack() as stack:
        yield stack


def test_held_connections_cost_few_descriptors_and_scrapes_are_answered(held: ExitStack) -> None:
    """944 of them once took every descriptor of a worker."""
    with serve(FREE, CollectorRegistry(), nothing, PATIENT) as port:
        for number in range(200):
            client = held.enter_context(socket.create_connection((HOST, port)))
            client.sendall(b"GET /metr")
            if number % 20 == 0:
                assert get(port, "/healthz")[0] == 200
                assert open_connections(port) <= 2 * PATIENT.connections
        assert get(port, "/metrics")[0] == 200
        wait_until_open(lambda count: count <= PATIENT.connections, port)


def test_a_large_request_is_cut_off(address: Address) -> None:
    """What is behind the limit is not read, so it cannot fill the memory."""
    with (
        serve(address, CollectorRegistry(), nothing, PATIENT) as port,
        closing(connect(port, address)) as large,
    ):
        begun = monotonic()
        try:
            large.sendall(b"GET /healthz HTTP/1.0\r\n" + b"X: " + b"a" * 1_000_000)
            answer = large.recv(100)
        except OSError:
            answer = b""
        assert b"200" not in answer
        assert monotonic() - begun < 10
