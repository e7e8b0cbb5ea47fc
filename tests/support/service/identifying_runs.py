"""Runs of a service on cases with identifying text.

`run_real_pipeline` runs `ctdeface up` on a terminal. `run_failing_stand_in` runs a watcher and a
worker with the stand-in pipeline, which raises every error with the marks in its message, crashes
and is killed; some messages are malformed.
"""

import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared import errors
from ctdeface_shared.jobs.messages import encode_job
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.settings.service import ServiceConfig
from tests.integration.test_brokers import put_raw
from tests.support.service.chaos import COMMAND, ROOT
from tests.support.service.event_subscriber import EventSubscriber
from tests.support.service.identifying_text import (
    CASES,
    EVERYTHING,
    FILE,
    FOLDER,
    write_marked_cases,
)
from tests.support.service.local_service import configured_service
from tests.support.service.scrapes import free_port, get
from tests.support.service.spools import drop, ends, job_for

DEADLINE_SECONDS = 240.0  # the machine may be busy
FOR_BATCH = (f"{FOLDER} cut", f"{FOLDER} mixed", f"{FOLDER} text")
BY_MESSAGE = frozenset({"InvalidMessage", "UnknownVersion", "EscapingPath"})
_KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.PermanentError)
]
PERMANENT = sorted({kind.code for kind in _KINDS} - BY_MESSAGE - {errors.PermanentError.code})
PASSING = (
    "StorageUnavailable",
    "BrokerUnavailable",
    "OutOfMemory",
    "InputChanged",
    "OSError",
    "MemoryError",
)
PLANS = (
    {"hang": "WorkerTimedOut"}
    | {f"raise {code}": code for code in PERMANENT}
    | {
        **{f"raise once {code}": "" for code in PASSING},
        "raise KeyError": "UnexpectedError",
        "raise UnicodeError": "UnexpectedError",
        "crash": "WorkerCrashed",
        "memory": "OutOfMemory",
        "release": "",
    }
)
"""Plan -> the code of the report, empty for a release; the slowest plans come first."""
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "watch": {"quiet_period": 0.4, "rescan_interval": 0.5},
    "work": {"job_timeout": 120, "max_attempts": 2, "grace_period": 0},
}
SHORT_TIMEOUT: Mapping[str, object] = {**SETTINGS["work"], "job_timeout": 20}


@dataclass(slots=True, kw_only=True)
class ServiceRun:
    """Everything that a run leaves behind.

    Attributes:
        service: its settings.
        log: standard error of its processes.
        ports: of the metrics endpoints.
        subscriber: receives the events; None where they are read later.
        pages: every response of the endpoints.
        queued: contents of the embedded queue's files at the same moments.
        events: the events as they are encoded in the queue.
    """

    service: ServiceConfig
    log: Path
    ports: Sequence[int]
    subscriber: EventSubscriber | None = None
    pages: set[str] = field(default_factory=set)
    queued: set[bytes] = field(default_factory=set)
    events: list[bytes] = field(default_factory=list)

    def poll(self) -> None:
        """Request every page, and receive the events so far."""
        self.pages |= {
            get(port, page)[1]
            for port in self.ports
            for page in ("/metrics", "/readyz", "/healthz")
        }
        for file in self.service.state_dir.glob("queue.sqlite3*"):
            with suppress(FileNotFoundError):
                self.queued.add(file.read_bytes())
        while self.subscriber is not None and (event := self.subscriber.next_body(0.2)):
            self.events.append(event)

    def until(self, holds: Callable[[], bool]) -> None:
        """Poll until a condition holds.

        Raises:
            TimeoutError: it did not hold in time.
        """
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            self.poll()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    ends(self.service.spool), self.log.read_text(encoding="utf-8")[-3000:]
                )
            time.sleep(0.3)
        self.poll()


def ended(ran: ServiceRun) -> tuple[int, int]:
    """Return the number of completed cases and the number of entries in the inbox."""
    there = ends(ran.service.spool)
    return len(there.outbox) + len(there.quarantine), len(there.inbox)


def environment(watch_port: int, work_port: int) -> dict[str, str]:
    """Return the environment of processes that serve metrics."""
    return {
        **os.environ,
        "CTDEFACE_METRICS__WATCH_PORT": str(watch_port),
        "CTDEFACE_METRICS__WORK_PORT": str(work_port),
    }


@contextmanager
def running(
    commands: Sequence[Sequence[str | Path]], ran: ServiceRun, stdout: int | None = None
) -> Iterator[None]:
    """Run processes during the block, and stop them by SIGTERM."""
    with ran.log.open("ab") as log:
        processes = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(*ran.ports[:2]),
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
            )
            for command in commands
        ]
    try:
        yield
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_real_pipeline(folder: Path) -> ServiceRun:
    """Drop marked cases, a damaged zip file and a loose file into `ctdeface up`."""
    service = configured_service(folder, None, **SETTINGS)
    service.prepare()
    ran = ServiceRun(service=service, log=folder / "stderr.log", ports=(free_port(), free_port()))
    write_marked_cases(folder / "cases")
    for name in FOR_BATCH:
        shutil.copytree(folder / "cases" / name, folder / "batch" / name)
    (service.spool.inbox / f"{FOLDER}.zip").write_bytes(b"no zip file " + FILE.encode())
    (service.spool.inbox / f"{FILE}.dcm").write_bytes(b"a stray file")
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=_read, args=(ours, shown), daemon=True)
    reader.start()
    with running(
        [(COMMAND, "up", "--config", folder / "ctdeface.toml", "--workers", "1", "--threads", "1")],
        ran,
        stdout=theirs,
    ):
        for name in CASES:
            (folder / "cases" / name).rename(service.spool.inbox / name)
        ran.until(
            lambda: (
                len(ends(service.spool).outbox) + len(ends(service.spool).quarantine)
                == len(CASES) + 1
                and len(ends(service.spool).not_ended) == 1
            )
        )
        time.sleep(1)  # the last event
    os.close(theirs)
    reader.join()
    (folder / "terminal").write_bytes(b"".join(shown))
    return ran


def _read(terminal: int, shown: list[bytes]) -> None:
    with suppress(OSError):  # the other end was closed
        while content := os.read(terminal, 65_536):
            shown.append(content)


def run_failing_stand_in(folder: Path, url: str) -> ServiceRun:
    """Drop a case for every error; before them malformed messages, after them late files."""
    service = configured_service(
        folder, url, watch=SETTINGS["watch"], work=SHORT_TIMEOUT, spool={"originals": "delete"}
    )
    service.prepare()
    ran = ServiceRun(service=service, log=folder / "stderr.log", ports=(free_port(), free_port()))
    drop(service.spool, FOLDER)
    job = job_for(service.spool, FOLDER)
    valid = json.loads(encode_job(job))
    taken_case(service.spool, job.taken).remove()
    crafted = (
        b"{ " + " ".join(EVERYTHING.values()).encode(),
        json.dumps(valid | {"schema_version": 9}).encode(),
        json.dumps(valid | {"case": f"../{FOLDER}", "job_id": str(uuid.uuid4())}).encode(),
    )
    put_raw(service.queue, *crafted)
    ran.subscriber = EventSubscriber(service.queue)
    ran.poll()
    config = folder / "ctdeface.toml"
    worker = (
        sys.executable,
        "-m",
        "tests.support.service.stand_in_worker",
        "--config",
        config,
        "--processes",
        "2",
    )
    with running([(COMMAND, "watch", "--config", config), worker], ran):
        for plan in PLANS:
            _drop_marked(service, plan)
        ran.until(lambda: not ends(service.spool).not_ended)
        late = service.spool.inbox / f"{FOLDER} release"
        late.mkdir()
        (late / f"{FILE} late.dcm").write_bytes(b"late")
        ran.until(lambda: not ends(service.spool).not_ended)
        ran.until(lambda: len(ran.events) >= len(PLANS))
    ran.subscriber.close()
    return ran


def _drop_marked(service: ServiceConfig, plan: str) -> None:
    hidden = service.spool.inbox / f".{plan}"
    hidden.mkdir()
    (hidden / "plan.txt").write_text("\n".join([plan, *EVERYTHING.values()]), encoding="utf-8")
    (hidden / f"{FILE} 1.dcm").write_text(plan, encoding="utf-8")
    hidden.rename(service.spool.inbox / f"{FOLDER} {plan}")


def run_batch(folder: Path, cases: Path) -> subprocess.CompletedProcess[str]:
    """Deface a folder of marked cases with the batch command."""
    command: list[str | Path] = [COMMAND, "deface", "-i", cases, "-o", folder / "out"]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )
