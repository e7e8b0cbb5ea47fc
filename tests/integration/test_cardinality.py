"""The number of metric series does not grow with the number of cases.

Watcher and worker are processes around an embedded queue; the worker's pipeline is the declared
stand-in, which makes its figures up. The suite works on 120 cases; `make soak` sets
CTDEFACE_TEST_CASES to 1000.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctdeface_shared.storage.spool import ServiceSpool
from tests.support.service.chaos import COMMAND, ROOT
from tests.support.service.scrapes import Series, by_label, free_port, scrape, value
from tests.support.service.spools import drop, ends

FEW, MANY = 10, int(os.environ.get("CTDEFACE_TEST_CASES", "120"))
DEADLINE_SECONDS = 120.0 + 2 * MANY  # on a machine that is busy otherwise
PLANS = (
    "refuse",
    "raise MissingSlices",
    "raise once InputChanged",
    "raise KeyError",
    "once crash",
    "release",
)
"""What becomes of cases, in turn."""
SETTINGS = {
    "WATCH__QUIET_PERIOD": "0.4",
    "WATCH__RESCAN_INTERVAL": "0.5",
    "WORK__MAX_ATTEMPTS": "2",
    "BROKER__RETRY_DELAYS": "[0.3]",
    "OUTPUT__MIN_FREE_GB": "0.1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A watcher and a worker of two slots.

    Attributes:
        spool: their folders.
        ports: where each serves its metrics.
    """

    spool: ServiceSpool
    ports: Mapping[str, int]

    def scraped(self) -> Mapping[str, dict[Series, float]]:
        """Return every series of each."""
        return {name: scrape(port) for name, port in self.ports.items()}

    def work_on(self, first: int, last: int) -> Mapping[str, dict[Series, float]]:
        """Drop cases, wait until all have ended, and return what the metrics say then."""
        for number in range(first, last):
            plan = PLANS[number % len(PLANS)] if number < FEW or number % 20 == 0 else "release"
            prepared = drop(
                ServiceSpool.under(self.spool.work / "prepared"), f"case {number:04d}", plan
            )
            prepared.rename(self.spool.inbox / prepared.name)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._is_over():
            assert time.monotonic() < deadline, ends(self.spool)
            time.sleep(0.3)
        return self.scraped()

    def _is_over(self) -> bool:
        if ends(self.spool).not_ended:
            return False
        scraped = self.scraped()
        busy = value(scraped["worker"], "ctdeface_worker_jobs_in_progress") + value(
            scraped["watcher"], "ctdeface_watcher_open_jobs"
        )
        return not busy


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Both processes, when they are ready."""
    spool = ServiceSpool.under(tmp_path / "spool")
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    ports = {"watcher": free_port(), "worker": free_port()}
    settings = {**SETTINGS, "SPOOL__ROOT": str(spool.inbox.parent)}
    settings |= {
        "METRICS__WATCH_PORT": str(ports["watcher"]),
        "METRICS__WORK_PORT": str(ports["worker"]),
    }
    environment = {
        **os.environ,
        **{f"CTDEFACE_{name}": setting for name, setting in settings.items()},
    }
    commands: tuple[list[str | Path], ...] = (
        [COMMAND, "watch"],
        [sys.executable, "-m", "tests.support.service.reporting_worker", "--processes", "2"],
    )
    with (tmp_path / "log").open("wb") as log:
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log) for command in commands
        ]
    yield Service(spool=spool, ports=ports)
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


@pytest.mark.timeout(DEADLINE_SECONDS * 2)
def test_there_are_as_many_series_after_many_cases_as_after_ten(service: Service) -> None:
    """Many cases give the same series as the first ten, with other figures."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not all(service.scraped().values()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    few = service.work_on(0, FEW)
    many = service.work_on(FEW, MANY)
    for name in service.ports:
        print(f"{name}: {len(few[name])} series after {FEW} cases, {len(many[name])} after {MANY}")
        assert few[name].keys() == many[name].keys()
        assert len(many[name]) > 50
    ended = by_label(many["worker"], "ctdeface_worker_jobs_total")
    assert ended["released"] + ended["refused"] == MANY
    assert set(by_label(few["worker"], "ctdeface_worker_attempt_failures_total")) == {
        "InputChanged", "MissingSlices", "UnexpectedError", "WorkerCrashed",
    }  # fmt: skip
