"""A RabbitMQ server of our own for the tests: private folder, free ports, gone afterwards."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ctdeface_shared.broker.target import BrokerTarget
from tests.support.required import INSTALLER, missing

STARTS_WITHIN_SECONDS = 90.0
PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections."""
DEBIAN = Path("/usr/lib/rabbitmq/bin")


def server_binary() -> str | None:
    """Return Debian's script if it exists, as the one on PATH changes the user."""
    debian = DEBIAN / "rabbitmq-server"
    return str(debian) if debian.exists() else shutil.which("rabbitmq-server")


def require_server() -> str:
    """Return the server's path; skip without one, or fail in CI."""
    found = server_binary()
    if found is None:
        missing(f"rabbitmq-server is not installed: {INSTALLER}")
    return found


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface outside the ephemeral range."""
    ports: list[int] = []
    while len(ports) < count:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            ports += [port] if port not in ports else []
    return ports


@dataclass(slots=True, kw_only=True)
class RabbitNode:
    """A server that keeps its data when it is killed and started again.

    Attributes:
        folder: everything it writes.
        settings: more lines of rabbitmq.conf.
    """

    folder: Path
    settings: tuple[str, ...] = ()
    port: int = 0
    tls_port: int = 0
    _process: "subprocess.Popen[bytes] | None" = None
    _epmd: "subprocess.Popen[bytes] | None" = None
    _environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Choose ports and write the configuration."""
        self.port, self.tls_port, distribution, epmd = free_ports(4)
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "log.console = false",
            f"log.file = {self.folder}/node.log",
            *self.settings,
        ]
        text = "\n".join(lines).replace("{tls_port}", str(self.tls_port))
        (self.folder / "rabbitmq.conf").write_text(text + "\n", encoding="utf-8")
        (self.folder / "advanced.config").write_text(
            "[{rabbit, [{channel_tick_interval, 1000}]}].\n", encoding="utf-8"
        )  # ms
        (self.folder / "plugins").write_text("[].\n", encoding="utf-8")
        kept = {
            name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "TMPDIR"}
        }
        self._environment = kept | {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"ctdeface-{os.getpid()}-{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "no-environment"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def start(self) -> None:
        """Start it and wait until it lets clients in."""
        epmd = shutil.which("epmd") or "epmd"
        self._epmd = self._epmd or subprocess.Popen(
            [epmd], env=self._environment, stderr=subprocess.DEVNULL
        )
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [require_server()],
                env=self._environment,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                written = (self.folder / "output").read_text(encoding="utf-8")
                pytest.fail(f"RabbitMQ did not start: {written[-2000:]}")
            time.sleep(0.1)

    def control(self, *arguments: str | Path) -> str:
        """Run rabbitmqctl on it and return what it says."""
        tool = Path(require_server()).with_name("rabbitmqctl")
        command = [tool, "--quiet", "-n", self._environment["RABBITMQ_NODENAME"], *arguments]
        return subprocess.run(
            command, env=self._environment, check=True, capture_output=True, text=True
        ).stdout

    def kill(self) -> None:
        """End it like a power cut would, and keep its data."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again with its data."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Kill it and its port mapper."""
        self.kill()
        if self._epmd:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def _answers(self) -> bool:
        """Whether it speaks AMQP yet: it listens a moment before it is ready."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(b"AMQP\x00\x00\x09\x01")
                client.settimeout(2)
                return bool(client.recv(1))
        except OSError:
            return False


@contextmanager
def running_node(folder: Path, *settings: str) -> Iterator[RabbitNode]:
    """Run a server for a while; settings are lines of rabbitmq.conf."""
    require_server()
    node = RabbitNode(folder=folder, settings=settings)
    node.prepare()
    try:
        node.start()
        yield node
    finally:
        node.stop()


def forget_everything(target: BrokerTarget) -> None:
    """Delete the queues of a target, so that the next test starts without messages."""
    from ctdeface_shared.broker.rabbitmq.link import Link
    from ctdeface_shared.broker.topology import queues

    link = Link(target)
    link.connect(10)
    for queue in queues(target.retry_delays):
        with link.fresh_channel() as channel:
            channel.queue_delete(queue.name)
    link.drop()
