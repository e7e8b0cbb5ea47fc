"""A run over cases full of marks: `ctdeface up` on a terminal with the real pipeline, then watcher and worker with the stand-in for it.

The stand-in fails with every error there is, each quoting the case and its marks in its words,
crashes and is killed; messages are crafted.
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
from ctdeface_shared.settings.service import ServiceConfig
from tests.integration.test_brokers import put_raw
from tests.support.service.chaos import COMMAND, ROOT
from tests.support.service.event_subscriber import EventSubscriber
from tests.support.service.fleet import found_site
from tests.support.service.marks import CASES, EVERYTHING, FILE, FOLDER, write_marked_cases
from tests.support.service.scrapes import free_port, get
from tests.support.service.spools import drop, ends, job_for

PATIENCE_SECONDS = 240.0  # on a machine that is busy otherwise
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
"""What the stand-in does -> the code of the report, empty for a release; what takes longest begins first."""
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "watch": {"quiet_period": 0.4, "rescan_interval": 0.5},
    "work": {"job_timeout": 120, "max_attempts": 2, "grace_period": 0},
}
IMPATIENT: Mapping[str, object] = {**SETTINGS["work"], "job_timeout": 20}


@dataclass(slots=True, kw_only=True)
class Ran:
    """What a run leaves.

    Attributes:
        site: where it ran.
        log: what its processes wrote on standard error.
        pages: what they served, each time they were asked.
        queued: what the files of the embedded queue held at each of these moments.
        events: the events of the queue as they travel.
        ports: where they serve.
        listener: hears the events; None where they are read later.
    """

    service: ServiceConfig
    log: Path
    ports: Sequence[int]
    subscriber: EventSubscriber | None = None
    pages: set[str] = field(default_factory=set)
    queued: set[bytes] = field(default_factory=set)
    events: list[bytes] = field(default_factory=list)

    def ask(self) -> None:
        """Ask for every page, and hear what is told meanwhile."""
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
        """Ask for the pages until something holds.

        Raises:
            TimeoutError: it never did.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            self.ask()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    ends(self.service.spool), self.log.read_text(encoding="utf-8")[-3000:]
                )
            time.sleep(0.3)
        self.ask()


def ended(ran: Ran) -> tuple[int, int]:
    """Return how many cases have ended, and how many files and folders lie in the inbox."""
    there = ends(ran.service.spool)
    return len(there.outbox) + len(there.quarantine), len(there.inbox)


def environment(watch_port: int, work_port: int) -> dict[str, str]:
    """Return the environment of processes that serve their pages."""
    return {
        **os.environ,
        "CTDEFACE_METRICS__WATCH_PORT": str(watch_port),
        "CTDEFACE_METRICS__WORK_PORT": str(work_port),
    }


@contextmanager
def running(
    commands: Sequence[Sequence[str | Path]], ran: Ran, stdout: int | None = None
) -> Iterator[None]:
    """Run processes for the time of the block, and stop them as an operator does."""
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


def run_real_pipeline(folder: Path) -> Ran:
    """Drop the marked cases, a damaged zip file and a stray file into a service on a terminal, whose logs lie in the state folder."""
    service = found_site(folder, None, **SETTINGS)
    service.prepare()
    ran = Ran(service=service, log=folder / "stderr.log", ports=(free_port(), free_port()))
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
                and len(ends(service.spool).inbox) == 1
            )
        )
        time.sleep(1)  # the last event
    os.close(theirs)
    reader.join()
    (folder / "terminal").write_bytes(b"".join(shown))
    return ran


def _read(terminal: int, shown: list[bytes]) -> None:
    with suppress(OSError):  # the other side is closed
        while content := os.read(terminal, 65_536):
            shown.append(content)


def run_failing_stand_in(folder: Path, url: str) -> Ran:
    """Drop a case for every error, with crafted messages before and late files after them."""
    service = found_site(
        folder, url, watch=SETTINGS["watch"], work=IMPATIENT, spool={"originals": "delete"}
    )
    service.prepare()
    ran = Ran(service=service, log=folder / "stderr.log", ports=(free_port(), free_port()))
    template = drop(service.spool, FOLDER)
    valid = json.loads(encode_job(job_for(service.spool, FOLDER)))
    (template / "plan.txt").unlink()
    (template / "0.dcm").unlink()
    template.rmdir()
    crafted = (
        b"{ " + " ".join(EVERYTHING.values()).encode(),
        json.dumps(valid | {"schema_version": 9}).encode(),
        json.dumps(valid | {"case": f"../{FOLDER}", "job_id": str(uuid.uuid4())}).encode(),
    )
    put_raw(service.queue, *crafted)
    ran.subscriber = EventSubscriber(service.queue)
    ran.ask()
    config = folder / "ctdeface.toml"
    worker = (
        sys.executable,
        "-m",
        "tests.support.service.crew",
        "--config",
        config,
        "--processes",
        "2",
    )
    with running([(COMMAND, "watch", "--config", config), worker], ran):
        for plan in PLANS:
            _drop_marked(service, plan)
        ran.until(lambda: not ends(service.spool).inbox)
        late = service.spool.inbox / f"{FOLDER} release"
        late.mkdir()
        (late / f"{FILE} late.dcm").write_bytes(b"late")
        ran.until(lambda: not ends(service.spool).inbox)
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
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
