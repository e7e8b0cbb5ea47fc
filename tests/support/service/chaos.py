"""Kill processes of a service at random while cases are dropped.

Watcher, three workers and the queue's server are processes; each may get SIGKILL and is started
again. A thread monitors the outbox: each case must have exactly one outcome and never be partial.
The pipeline is `tests.support.service.stand_in_pipeline` unless the real one is requested.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ctdeface_shared.storage.spool import ServiceSpool

ROOT = Path(__file__).resolve().parents[3]
COMMAND = Path(sys.executable).parent / "ctdeface"
Contents = Mapping[str, bytes]


def watcher(spool: Path) -> tuple[str, ...]:
    """Return the command line of a watcher."""
    return (str(COMMAND), "watch", "--spool", str(spool))


def real_worker(spool: Path) -> tuple[str, ...]:
    """Return the command line of a worker."""
    return (str(COMMAND), "work", "--spool", str(spool), "--processes", "1")


def stand_in_worker(spool: Path) -> tuple[str, ...]:
    """Return the command line of a worker with the stand-in pipeline."""
    return (sys.executable, "-m", "tests.support.service.stand_in_worker", "--spool", str(spool))


BEGINNING_SECONDS = 12.0
"""A process on a busy machine needs this long to clean up after a killed one and handle signals."""


@dataclass(slots=True)
class ServiceProcess:
    """A process that may be killed and started again.

    Attributes:
        name: in the messages of the test.
        command: its command line.
        log: receives its output.
        environment: its environment variables.
        process: the current or last one.
        started: time of its start, by the monotonic clock.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it unless it is running."""
        if not self.is_running:
            self.started = time.monotonic()
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command,
                    cwd=ROOT,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill(self, *, group: bool) -> None:
        """Send SIGKILL to it, or to its process group, and start it again."""
        if self.process is not None and self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.start()

    def end(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        return self.process.wait(timeout=60)


@dataclass(slots=True)
class OutboxMonitor:
    """Checks the outbox continually, and records every wrong folder.

    Attributes:
        outbox: the folder.
        is_right: returns True if a folder of this name may contain these files.
    """

    outbox: Path
    is_right: Callable[[str, Contents], bool]
    scans: int = 0
    wrong: list[str] = field(default_factory=list)
    right: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(default_factory=threading.Thread)
    _is_done: bool = False

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread and check every case once more.

        Raises:
            AssertionError: the thread died before.
        """
        self._stop.set()
        self._thread.join()
        assert self._is_done, "the monitor died before it was stopped"
        self.right.clear()
        self._scan()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self._scan()
        self._is_done = True

    def _scan(self) -> None:
        self.scans += 1
        for case in sorted(names(self.outbox) - self.right):
            if self.is_right(case, contents(self.outbox / case)):
                self.right.add(case)
            else:
                self.wrong.append(case)


def contents(folder: Path) -> Contents:
    """Return every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How cases are dropped and processes killed.

    Attributes:
        drops: each puts one case into the inbox.
        kills: the smallest number of kills.
        pause_seconds: shortest and longest pause between two kills.
        settle_seconds: time until every case is complete after the last kill.
        chance: the source of random numbers.
    """

    drops: Sequence[Callable[[], object]]
    kills: int
    pause_seconds: tuple[float, float]
    settle_seconds: float
    chance: random.Random


def kill_at_random(
    plan: Plan,
    processes: Sequence[ServiceProcess],
    restart_server: Callable[[], None] | None,
    is_over: Callable[[], bool],
) -> Counter[str]:
    """Drop cases and kill processes, wait for every outcome, and count the kills.

    Raises:
        TimeoutError: a case did not complete, or a process did not end normally.
    """
    for process in processes:
        process.start()
    left, killed = list(plan.drops), Counter[str]()
    targets = [process.name for process in processes] + ["server"] * (restart_server is not None)
    try:
        while left or killed.total() < plan.kills:
            share = max(round(len(plan.drops) / max(plan.kills, 1)), 1)
            for drop in left[:share]:
                drop()
            del left[:share]
            time.sleep(plan.chance.uniform(*plan.pause_seconds))
            least = min(killed[target] for target in targets)
            name = plan.chance.choice([target for target in targets if killed[target] == least])
            if name == "server" and restart_server is not None:
                restart_server()
            else:
                next(process for process in processes if process.name == name).kill(
                    group=bool(killed.total() % 2)
                )
            killed[name] += 1
        _wait_until_over(plan.settle_seconds, processes, is_over)
    finally:
        codes = {process.name: process.end() for process in processes}
    if any(codes.values()):
        raise TimeoutError(f"not every process ended with 0: {codes}")
    return killed


def _wait_until_over(
    seconds: float, processes: Sequence[ServiceProcess], is_over: Callable[[], bool]
) -> None:
    """Restart dead processes until every case is complete and every process is ready."""
    deadline = time.monotonic() + seconds
    while not is_over():
        if time.monotonic() > deadline:
            raise TimeoutError("not every case was completed in time")
        for process in processes:
            process.start()
        time.sleep(0.2)
    last = max(process.started for process in processes)
    time.sleep(max(last + BEGINNING_SECONDS - time.monotonic(), 0.0))


def names(folder: Path) -> set[str]:
    """Return the names of the entries of a folder."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def leftovers(spool: ServiceSpool) -> list[Path]:
    """Return the temporary files and folders that remain."""
    return [
        path
        for folder in (spool.staging, spool.work, spool.locks, spool.taken)
        for path in folder.iterdir()
    ]
