"""Kills everything at random while cases are dropped, and sees whether each case still comes to exactly one end.

Watcher, three workers and the queue's server are processes; any of them gets SIGKILL and is started
again. A thread looks at the outbox all the time. The workers' pipeline is a stand-in
(`tests.support.service.standin`) unless the real one is asked for; everything else is what users
run.
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
    """The watcher as users start it."""
    return (str(COMMAND), "watch", "--spool", str(spool))


def real_worker(spool: Path) -> tuple[str, ...]:
    """A worker as users start it."""
    return (str(COMMAND), "work", "--spool", str(spool), "--processes", "1")


def stand_in_worker(spool: Path) -> tuple[str, ...]:
    """A worker with the stand-in for a pipeline."""
    return (sys.executable, "-m", "tests.support.service.worker", "--spool", str(spool))


BEGINNING_SECONDS = 12.0
"""So long a process may take, on a busy machine, until it has cleared what a killed one left and listens to signals."""


@dataclass(slots=True)
class Member:
    """A process that is killed and started again.

    Attributes:
        name: for the account.
        command: what runs.
        log: where it writes.
        environment: what it sees.
        process: that runs or ran last.
        started: when, by the clock that only goes forward.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0

    def start(self) -> None:
        """Start it unless it runs."""
        if self.process is None or self.process.poll() is not None:
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
        """Send SIGKILL to it alone or to its children as well, and start it again."""
        if self.process is not None and self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.start()

    def end(self) -> int:
        """Ask it to end and return its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        return self.process.wait(timeout=60)


@dataclass(slots=True)
class Lookout:
    """Looks at the outbox all the time, and remembers what should never be seen.

    Attributes:
        outbox: where to look.
        is_right: whether a folder of this name may hold these files.
    """

    outbox: Path
    is_right: Callable[[str, Contents], bool]
    looks: int = 0
    wrong: list[str] = field(default_factory=list)
    right: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(default_factory=threading.Thread)
    _is_done: bool = False

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look a last time at every case, and stop.

        Raises:
            AssertionError: nobody looked any more, because the thread had died.
        """
        self._stop.set()
        self._thread.join()
        assert self._is_done, "the lookout died before it was stopped"
        self.right.clear()
        self._look_once()

    def _look(self) -> None:
        while not self._stop.wait(0.002):
            self._look_once()
        self._is_done = True

    def _look_once(self) -> None:
        self.looks += 1
        for case in sorted(names(self.outbox) - self.right):
            if self.is_right(case, contents(self.outbox / case)):
                self.right.add(case)
            else:
                self.wrong.append(case)


def contents(folder: Path) -> Contents:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen.

    Attributes:
        drops: each puts one case into the inbox.
        kills: how many, at least.
        pause_seconds: shortest and longest pause between two kills.
        settle_seconds: how long everything may take to come to its end after the last kill.
        chance: where randomness comes from.
    """

    drops: Sequence[Callable[[], object]]
    kills: int
    pause_seconds: tuple[float, float]
    settle_seconds: float
    chance: random.Random


def rage(
    plan: Plan,
    members: Sequence[Member],
    restart_server: Callable[[], None] | None,
    is_over: Callable[[], bool],
) -> Counter[str]:
    """Drop cases and kill members until both are done, wait until everything has come to its end, and stop all; return the kills.

    Raises:
        TimeoutError: something did not come to its end.
    """
    for member in members:
        member.start()
    left, killed = list(plan.drops), Counter[str]()
    targets = [member.name for member in members] + ["server"] * (restart_server is not None)
    try:
        while left or killed.total() < plan.kills:
            share = max(round(len(plan.drops) / max(plan.kills, 1)), 1)
            for drop in left[:share]:
                drop()
            del left[:share]
            time.sleep(plan.chance.uniform(*plan.pause_seconds))
            # everyone gets his turn, in random order
            name = plan.chance.choice(
                [
                    target
                    for target in targets
                    if killed[target] == min(killed[each] for each in targets)
                ]
            )
            if name == "server" and restart_server is not None:
                restart_server()
            else:
                next(member for member in members if member.name == name).kill(
                    group=bool(killed.total() % 2)
                )
            killed[name] += 1
        deadline = time.monotonic() + plan.settle_seconds
        while not is_over():
            if time.monotonic() > deadline:
                raise TimeoutError("the cases did not come to their end")
            for member in members:
                member.start()
            time.sleep(0.2)
        time.sleep(
            max(*(member.started + BEGINNING_SECONDS - time.monotonic() for member in members), 0.0)
        )
    finally:
        codes = {member.name: member.end() for member in members}
    if any(codes.values()):
        raise TimeoutError(f"not every process ended as asked: {codes}")
    return killed


def names(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def leftovers(spool: ServiceSpool) -> list[Path]:
    """What should be gone when all is over."""
    return [
        path for folder in (spool.staging, spool.work, spool.locks) for path in folder.iterdir()
    ]
