"""Services under a constant load, sampled over time.

Cases are dropped at a steady rate; whoever uses the service takes released and refused cases away
and counts them, as people do. All processes are real; the pipeline is the real one on small
synthetic heads, or the declared stand-in where many cases are wanted.
"""

import itertools
import math
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.storage.spool import ServiceSpool
from tests.support.service.chaos import COMMAND, ServiceProcess
from tests.support.service.processes import Holdings, children_of, command_of, family, held_by
from tests.support.service.scrapes import by_label, get, scrape, value

DAY_SECONDS = 86_400.0
RESTING_SECONDS = 2.0
"""Cases in outbox or quarantine are removed after this time, when the worker is done."""
MOST_WAITING = 6
"""No case is dropped while this many have not ended, so that none pile up."""
STATE = ("ledger.sqlite3", "queue.sqlite3", "watcher.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is on the disk at one moment.

    Attributes:
        folders: how many entries each folder has.
        oldest_seconds: since when the oldest job lies in reports and archived originals; 0 without
            any.
        state_bytes: size of each file of the state folder, SQLite's own beside it included.
        log_bytes: what all processes logged so far.
    """

    folders: Mapping[str, int]
    oldest_seconds: float
    state_bytes: Mapping[str, int]
    log_bytes: int


@dataclass(slots=True, kw_only=True)
class Service:
    """One service of the soak.

    Attributes:
        name: for the account.
        spool: its folders.
        members: its processes.
        ports: of the watcher and of each worker.
        drops: puts the next case into the inbox, given its number.
        every_seconds: between two drops.
        is_stand_in: whether the workers have the stand-in for the pipeline.
        dropped: how many so far.
        taken: cases that were taken away, by the folder they lay in.
        counted: how many deliveries the workers said came to which end, before they were stopped.
        codes: what the processes ended with.
        holdings: what the processes held, at seconds since the beginning.
        looks: what was on the disk, at the same moments.
    """

    name: str
    spool: ServiceSpool
    members: Sequence[ServiceProcess]
    ports: Mapping[str, int]
    drops: Callable[[int], object]
    every_seconds: float
    is_stand_in: bool = False
    dropped: int = 0
    taken: "Counter[str]" = field(default_factory=Counter)
    counted: "Counter[str]" = field(default_factory=Counter)
    codes: dict[str, int] = field(default_factory=dict)
    holdings: list[tuple[float, Holdings]] = field(default_factory=list)
    looks: list[tuple[float, Look]] = field(default_factory=list)

    def is_ready(self) -> bool:
        """Whether watcher and workers say so."""
        return all(get(port, "/readyz")[0] == 200 for port in self.ports.values())

    def pending(self) -> int:
        """Count the cases that have not ended."""
        return len(_names(self.spool.inbox)) + len(_names(self.spool.taken))

    def drop(self, cases: int = 1) -> None:
        """Put cases into the inbox."""
        for _ in range(cases):
            self.drops(self.dropped)
            self.dropped += 1

    def roles(self) -> Mapping[str, int]:
        """Return the process ids by role, including the children of `up`."""
        pids = {
            member.name: member.process.pid for member in self.members if member.process is not None
        }
        for pid in children_of(pids["up"]) if "up" in pids else ():
            words = command_of(pid).split()
            if "watch" in words:
                pids["watcher"] = pid
            elif "--metrics-port" in words:
                ports = {str(port): name for name, port in self.ports.items()}
                pids[ports[words[words.index("--metrics-port") + 1]]] = pid
        return pids

    def sample(self, at: float) -> None:
        """Look at all processes and at the disk."""
        found = {role: held_by(pid) for role, pid in family(self.roles()).items()}
        self.holdings.append((at, {role: held for role, held in found.items() if held is not None}))
        self.looks.append((at, self.look()))

    def look(self) -> Look:
        """Look at the disk."""
        spool, state = self.spool, self.spool.inbox.parent / "state"
        passing = {
            "staging": spool.staging,
            "work": spool.work,
            "locks": spool.locks,
            "reports": spool.reports,
        }
        passing |= {
            "originals": spool.archive / "originals",
            "inbox": spool.inbox,
            "taken": spool.taken,
        }
        sizes = {name: sum(_size(path) for path in state.glob(f"{name}*")) for name in STATE}
        logs = sum(_size(member.log) for member in self.members)
        oldest = max(
            (
                _age_seconds(job)
                for folder in ("reports", "originals")
                for job in _below(passing[folder])
            ),
            default=0.0,
        )
        folders = {name: len(_names(folder)) for name, folder in passing.items()}
        return Look(folders=folders, oldest_seconds=oldest, state_bytes=sizes, log_bytes=logs)

    def take_away(self) -> None:
        """Take away and count what has ended, as whoever uses the service does."""
        now = time.time()
        for folder in (self.spool.outbox, self.spool.quarantine):
            for name in _names(folder):
                with suppress(FileNotFoundError):
                    status = (folder / name).stat()
                    if now - max(status.st_mtime, status.st_ctime) >= RESTING_SECONDS:
                        shutil.rmtree(folder / name)
                        self.taken[folder.name] += 1

    def finish(self) -> None:
        """Ask the workers what they counted, and all processes to end."""
        for name in self.ports.keys() - {"watcher"}:
            counts = by_label(scrape(self.ports[name]), "ctdeface_worker_jobs_total")
            self.counted.update({outcome: int(count) for outcome, count in counts.items()})
        self.codes.update({member.name: member.end() for member in self.members})

    def is_over(self) -> bool:
        """Whether every case has ended and the watcher knows it."""
        self.take_away()
        watcher = scrape(self.ports["watcher"])
        waits = value(watcher, "ctdeface_watcher_pending_cases") + value(
            watcher, "ctdeface_watcher_open_jobs"
        )
        return sum(self.taken.values()) >= self.dropped and not waits


def soak(
    services: Sequence[Service], seconds: float, sample_seconds: float, settle_seconds: float
) -> None:
    """Drop cases, sample everything, and wait for every outcome.

    Raises:
        TimeoutError: a service did not become ready, or its cases did not come to their end.
    """
    for service in services:
        for member in service.members:
            member.start()
    _until(lambda: all(service.is_ready() for service in services), 60.0, "to become ready")
    for service in services:
        service.drop(len(service.ports) - 1)
    _until_over(services, settle_seconds)  # every worker has a child then, and everything is loaded
    _work_without_a_pause(services, seconds, sample_seconds)
    _until_over(services, settle_seconds)
    for service in services:
        service.finish()


def _work_without_a_pause(
    services: Sequence[Service], seconds: float, sample_seconds: float
) -> None:
    begun = time.monotonic()
    due = dict.fromkeys((service.name for service in services), begun)
    looked = -math.inf
    while (at := time.monotonic() - begun) < seconds:
        for service in services:
            if time.monotonic() >= due[service.name] and service.pending() < MOST_WAITING:
                service.drop()
                due[service.name] = time.monotonic() + service.every_seconds
        if at - looked >= sample_seconds:
            looked = at
            for service in services:
                service.sample(at)
                service.take_away()
        time.sleep(0.02)


def _until_over(services: Sequence[Service], seconds: float) -> None:
    for service in services:
        _until(
            service.is_over,
            seconds,
            f"to end ({service.name}: {service.taken} of {service.dropped})",
        )


def _until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it took too long {what}")
        time.sleep(0.2)


def processes(
    root: Path, ports: Mapping[str, int], environment: Mapping[str, str], stand_in: bool
) -> Iterator[ServiceProcess]:
    """Yield a watcher and two workers, each a process, over a spool."""
    for name, port in ports.items():
        command: tuple[str, ...] = (
            str(COMMAND),
            "work",
            "--spool",
            str(root),
            "--processes",
            "1",
            "--threads",
            "1",
        )
        if name == "watcher":
            command = (str(COMMAND), "watch", "--spool", str(root))
        elif stand_in:
            command = (
                sys.executable,
                "-m",
                "tests.support.service.stand_in_worker",
                "--spool",
                str(root),
            )
        own = {f"CTDEFACE_METRICS__{one}_PORT": str(port) for one in ("WATCH", "WORK")}
        yield ServiceProcess(name, command, root.parent / f"{name}.log", {**environment, **own})


def settings(url: str | None, keep_seconds: float) -> Mapping[str, str]:
    """Return settings with short delays and retention; without a URL the queue is embedded."""
    days = str(keep_seconds / DAY_SECONDS)
    chosen = {
        "WATCH__QUIET_PERIOD": "0.4",
        "WATCH__RESCAN_INTERVAL": "1",
        "OUTPUT__MIN_FREE_GB": "0.1",
        "WORK__MAX_ATTEMPTS": "2",
        "WORK__GRACE_PERIOD": "30",
        "BROKER__RETRY_DELAYS": "[0.5]",
        "SPOOL__ARCHIVE_DAYS": days,
        "SPOOL__REPORTS_DAYS": days,
    } | ({"BROKER__URL": url} if url else {})
    return {**os.environ, **{f"CTDEFACE_{name}": setting for name, setting in chosen.items()}}


def copies(templates: Mapping[str, Path], spool: ServiceSpool) -> Callable[[int], object]:
    """Return a function that drops copies of the folders in turn."""
    turns = itertools.cycle(templates.items())

    def drop(number: int) -> None:
        kind, folder = next(turns)
        hidden = spool.inbox / f".{number}"
        shutil.copytree(folder, hidden)
        hidden.rename(spool.inbox / f"{number:06d} {kind}")

    return drop


def _below(folder: Path) -> Iterator[Path]:
    """Yield the entries of the folders in a folder, some of which vanish meanwhile."""
    for case in folder.iterdir():
        # The page of all jobs is a file beside the folders of reports.
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from case.iterdir()


def _names(folder: Path) -> Sequence[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".seen-")]
    except FileNotFoundError:
        return ()


def _age_seconds(folder: Path) -> float:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return 0.0
    return time.time() - max(status.st_mtime, status.st_ctime)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
