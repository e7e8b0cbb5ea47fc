"""A private Prometheus for tests, with the shipped rules."""

import json
import math
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.required import program
from tests.support.service.scrapes import HOST, free_port, get

SHIPPED = Path(__file__).parents[2] / "deploy/prometheus"
EVERY = "1s"
DEADLINE_SECONDS = 60.0  # on a machine that is busy otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running server.

    Attributes:
        port: of its API.
    """

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API and return the data.

        Raises:
            AssertionError: it complains, for example about an expression.
        """
        url = f"http://{HOST}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def is_ready(self) -> bool:
        """Whether it answers."""
        return get(self.port, "/-/ready")[0] == 200

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {
            alert["labels"]["alertname"]
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def until(self, holds: Callable[[set[str]], bool]) -> None:
        """Wait until something holds of the firing alerts."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds(self.firing()):
            assert time.monotonic() < deadline, self.firing()
            time.sleep(0.2)

    def figures(self, expression: str, seconds: float) -> Sequence[float]:
        """Return all figures of an expression in the last seconds, without NaN."""
        now = time.time()
        found = self.ask(
            "query_range", query=expression, start=str(now - seconds), end=str(now), step=EVERY
        )["result"]
        return [
            float(value)
            for series in found
            for _, value in series["values"]
            if not math.isnan(float(value))
        ]


def quick_rules(folder: Path) -> None:
    """Copy the shipped rules with delays of a second; expressions stay the same."""
    for file in sorted((SHIPPED / "rules").glob("*.yml")):
        text = file.read_text(encoding="utf-8")
        (folder / file.name).write_text(
            re.sub(r"(?m)^( +for:) \w+$", rf"\1 {EVERY}", text), encoding="utf-8"
        )


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, Sequence[int]]) -> Iterator[Prometheus]:
    """Run a server that scrapes ports of this machine every second.

    Args:
        folder: for its data and configuration.
        targets: job -> ports; each job takes the place of the shipped one of that name.
    """
    binary = program("prometheus")
    folder.mkdir()
    quick_rules(folder)
    shipped = yaml.safe_load((SHIPPED / "compose.yml").read_text(encoding="utf-8"))
    assert set(targets) < {job["job_name"] for job in shipped["scrape_configs"]}
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"{HOST}:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    config = {
        "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY},
        "rule_files": ["*.yml"],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    server = Prometheus(port=free_port())
    options = [
        f"--web.listen-address={HOST}:{server.port}",
        f"--storage.tsdb.path={folder}/data",
        f"--config.file={folder}/prometheus.yaml",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, *options], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not server.is_ready():
            assert time.monotonic() < deadline, (folder / "log").read_text(encoding="utf-8")
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()
