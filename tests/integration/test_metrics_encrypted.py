"""Metrics over HTTPS, and for known clients only where that is required."""

import socket
import ssl
import subprocess
from contextlib import closing
from dataclasses import replace
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.metrics.endpoint import Address, serve
from ctdeface_shared.settings.sections import MetricsSection
from tests.integration.test_metrics_endpoint import FREE, nothing
from tests.integration.test_rabbitmq import CERTIFICATES
from tests.support.service.scrapes import HOST


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority of our own, and a server's and a client's certificate."""
    made = tmp_path_factory.mktemp("certificates")
    subprocess.run(
        ["sh", "-e"], input=CERTIFICATES, text=True, cwd=made, check=True, capture_output=True
    )
    return made


def _settings(folder: Path, **more: Path) -> MetricsSection:
    return MetricsSection(cert_file=folder / "server.pem", key_file=folder / "server.key", **more)


def _status(port: int, client: ssl.SSLContext) -> int:
    with closing(HTTPSConnection(HOST, port, context=client, timeout=10)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def _in_the_clear(port: int) -> bytes:
    """What a client gets that does not encrypt."""
    with socket.create_connection((HOST, port), timeout=10) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        try:
            return client.recv(4096)
        except ConnectionResetError:
            return b""


def test_pages_are_served_by_https_only(folder: Path) -> None:
    """Trusted clients are answered, plain HTTP and old TLS are not, silent ones block none."""
    tls = Address.of(_settings(folder), 1).tls
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    old = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        serve(replace(FREE, tls=tls), CollectorRegistry(), nothing) as port,
        socket.create_connection((HOST, port)),
    ):
        assert _status(port, client) == 200
        assert _status(port, old) == 200
        assert _in_the_clear(port) == b""
        with pytest.raises(ssl.SSLCertVerificationError):
            _status(port, ssl.create_default_context())
    assert tls is not None
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_2


def test_only_known_clients_are_answered_where_that_is_asked_for(folder: Path) -> None:
    """Prometheus presents its certificate; clients without one are refused."""
    tls = Address.of(_settings(folder, client_ca_file=folder / "ca.pem"), 1).tls
    stranger = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    known = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    known.load_cert_chain(folder / "client.pem", folder / "client.key")
    with serve(replace(FREE, tls=tls), CollectorRegistry(), nothing) as port:
        assert _status(port, known) == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _status(port, stranger)


def test_a_certificate_that_cannot_be_used_ends_the_start_with_a_sentence(folder: Path) -> None:
    """Nothing is served in the clear instead; where nothing is served, nothing is read."""
    broken = MetricsSection(cert_file=folder / "ca.key")
    with pytest.raises(ConfigurationError, match=r"metrics\.cert_file"):
        Address.of(broken, 1)
    with pytest.raises(ConfigurationError, match="No such file"):
        Address.of(MetricsSection(cert_file=folder / "nothing.pem"), 1)
    assert Address.of(broken, 0).tls is None
    with pytest.raises(ValidationError, match="have no effect without cert_file"):
        MetricsSection(client_ca_file=folder / "ca.pem")
