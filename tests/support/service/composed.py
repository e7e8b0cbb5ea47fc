"""Run the processes of deploy/compose.yaml without containers."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
CTDEFACE = Path(sys.executable).with_name("ctdeface")
STAND_IN = (sys.executable, "-m", "tests.support.service.reporting_worker")
"""Takes the place of `ctdeface work`."""


def make_secrets(folder: Path) -> None:
    """Make passwords and definitions as the page about deployment says."""
    subprocess.run(
        [sys.executable, DEPLOY / "docker/make_secrets.py", folder], check=True, capture_output=True
    )


def rabbitmq_settings(secrets: Path) -> Sequence[str]:
    """Return the lines of the shipped rabbitmq.conf, with the definitions where they lie here."""
    lines = (DEPLOY / "rabbitmq/rabbitmq.conf").read_text(encoding="utf-8").splitlines()
    mounted = COMPOSE["services"]["rabbitmq"]["secrets"]
    file = secrets / Path(COMPOSE["secrets"]["rabbitmq_definitions"]["file"]).name
    assert mounted == ["rabbitmq_definitions"]
    moved = [
        line.replace("/run/secrets/rabbitmq_definitions", str(file))
        for line in lines
        if line and not line.startswith("#")
    ]
    assert f"load_definitions = {file}" in moved
    return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where on this machine things are that containers see elsewhere.

    Attributes:
        spool: what is mounted at /spool.
        state: what is mounted at /state.
        secrets: the folder of passwords.
        queue_port: RabbitMQ's.
    """

    spool: Path
    state: Path
    secrets: Path
    queue_port: int

    def environment_of(self, name: str) -> Mapping[str, str]:
        """Return the settings of a service of the file, each with this machine's place."""
        service = COMPOSE["services"][name]
        (secret,) = service["secrets"]
        moved = {
            "/spool": str(self.spool),
            "/state": str(self.state),
            f"/run/secrets/{secret['target']}": str(
                self.secrets / Path(COMPOSE["secrets"][secret["source"]]["file"]).name
            ),
            "amqp://rabbitmq:5672": f"amqp://127.0.0.1:{self.queue_port}",
            "0.0.0.0": "127.0.0.1",
        }
        settings = {
            key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
            for key, value in service["environment"].items()
        }
        assert set(moved) <= set(settings.values())
        own = {key: value for key, value in os.environ.items() if not key.startswith("CTDEFACE_")}
        return own | {key: moved.get(value, value) for key, value in settings.items()}


def command_of(name: str) -> Sequence[str]:
    """Return what a service runs; the stand-in where that is the worker."""
    words: list[str] = COMPOSE["services"][name]["command"]
    return [*STAND_IN, *words[1:]] if words[0] == "work" else [str(CTDEFACE), *words]
