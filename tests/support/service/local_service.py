"""Worker processes on one spool and queue, restarted when they die."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import DeadLetter, Depth
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.settings.service import ServiceConfig, find_service
from ctdeface_shared.storage.spool import ServiceSpool
from tests.support.service.spools import ends

ROOT = Path(__file__).parents[3]
DELAY_SECONDS = 0.4
DEADLINE_SECONDS = 120.0  # the machine may be busy
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "output": {"min_free_gb": 0},
    "work": {"job_timeout": 20, "max_attempts": 2, "grace_period": 0},
    "broker": {"retry_delays": [DELAY_SECONDS], "lease": 2.0, "heartbeat": 2},
}


def configured_service(
    folder: Path, url: str | None, **changes: Mapping[str, object]
) -> ServiceConfig:
    """Write the settings file of a service into a folder, and read it.

    Args:
        folder: gets `ctdeface.toml` and the spool.
        url: of the queue; None for the embedded one.
        changes: tables of settings that differ from `DEFAULTS`.
    """
    tables = {
        name: dict(DEFAULTS.get(name, {})) | dict(changes.get(name, {}))
        for name in {*DEFAULTS, *changes, "spool"}
    }
    tables["spool"] = {"root": str(folder / "spool")} | tables["spool"]
    if url:
        tables["broker"] |= {"url": url}
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ctdeface.toml").write_text("\n".join(lines), encoding="utf-8")
    return find_service(folder / "ctdeface.toml")


@dataclass(slots=True, kw_only=True)
class LocalService:
    """Workers of one service.

    Attributes:
        folder: contains the settings file and the logs of the workers.
        service: the settings.
        restarts: number of workers that were started again.
    """

    folder: Path
    service: ServiceConfig
    restarts: int = 0
    _workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def spool(self) -> ServiceSpool:
        """The spool of the service."""
        return self.service.spool

    @property
    def log(self) -> str:
        """The log of all workers."""
        return (self.folder / "workers.log").read_text(encoding="utf-8")

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start one more worker."""
        command = [
            sys.executable,
            "-m",
            "tests.support.service.stand_in_worker",
            "--config",
            str(self.folder / "ctdeface.toml"),
            *arguments,
        ]
        with (self.folder / "workers.log").open("ab") as log:
            worker = subprocess.Popen(command, cwd=ROOT, stderr=log)
        self._workers.append(worker)
        return worker

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition; restart workers that die meanwhile."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, self.log[-4000:]
            time.sleep(0.05)
            for worker in [worker for worker in self._workers if worker.poll() is not None]:
                self._workers.remove(worker)
                self.restarts += 1
                self.start()

    def publish(self, *jobs: DefaceJob) -> None:
        """Put jobs into the queue."""
        broker = open_broker(self.service.queue)
        for job in jobs:
            broker.publish(job)
        broker.close()

    def depth(self) -> Depth:
        """Count the messages in the queue."""
        broker = open_broker(self.service.queue)
        found = broker.depth()
        broker.close()
        return found

    def dead_letters(self) -> list[DeadLetter]:
        """List the dead letters."""
        broker = open_broker(self.service.queue)
        found = list(broker.dead_letters())
        broker.close()
        return found

    def is_idle(self) -> bool:
        """Whether no case waits, no job is in the queue and no publication has begun.

        AMQP does not report the jobs that workers hold.
        """
        depth = self.depth()
        waiting = ends(self.spool).not_ended or depth.ready or depth.delayed or depth.held
        return not waiting and not list(self.spool.staging.glob("*/unfinished.json"))

    def logged(self, event: str, job_id: str) -> list[str | int]:
        """Return the settlement codes or attempt numbers logged for an event of a job."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        found = [line for line in lines if line["event"] == event and line.get("job_id") == job_id]
        return [line.get("code", line.get("attempt")) for line in found]

    def stop(self) -> None:
        """Kill every worker."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
        self._workers.clear()
