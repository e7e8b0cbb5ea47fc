"""A warm child process that runs one task after another, so that a crash, a hang or the memory killer costs one task and never the parent.

The child prepares itself once (`prepare`, for example loading a model) and then answers tasks over
a pipe. It exits when the pipe closes, so a parent that dies, even by SIGKILL, leaves nothing
running. Nothing the child does is visible to users: only the parent publishes.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import monotonic
from typing import Generic, TypeAlias, TypeVar, cast

from ctdeface_shared import logs
from ctdeface_shared.errors import CtDefaceError, OutOfMemory, TransientError
from ctdeface_shared.lifecycle import boundary

_WATCH_SECONDS = 0.5
"""How often a busy child's time and memory are looked at."""

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
Notify: TypeAlias = Callable[[str], None]
Run: TypeAlias = Callable[[Task, Notify], Outcome]
Prepare: TypeAlias = Callable[[], Run[Task, Outcome]]


class WorkerCrashed(TransientError):
    """The process that worked on the case died."""


class WorkerTimedOut(TransientError):
    """The case took longer than the job timeout allows."""


class UnexpectedError(TransientError):
    """A bug: an error that nobody foresaw; the log has its traceback."""


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str


@dataclass(frozen=True, slots=True)
class _Answer:
    outcome: object


class WarmChild(Generic[Task, Outcome]):
    """Owns one child process; starts it when needed and replaces it after it died."""

    def __init__(self, prepare: Prepare[Task, Outcome]) -> None:
        """Remember how the child prepares itself; `prepare` must be importable, because the child starts from scratch (spawn)."""
        self._prepare = prepare
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._starts = 0
        self._peak_bytes = 0

    @property
    def restarts(self) -> int:
        """How often the process had to be started again."""
        return max(self._starts - 1, 0)

    @property
    def peak_bytes(self) -> int:
        """Most memory that a process of this child was seen to hold; 0 where the system does not say (no /proc)."""
        return self._peak_bytes

    def run(
        self,
        task: Task,
        *,
        notify: Notify,
        timeout_seconds: float,
        memory_limit_bytes: int | None = None,
    ) -> Outcome:
        """Run one task in the child and return its outcome; `notify` hears the name of each stage.

        Raises:
            CtDefaceError: what the task itself raised.
            OutOfMemory: the child ran out of memory, went past the limit or was killed by the
                system.
            WorkerCrashed: the child died of anything else.
            UnexpectedError: the task met a bug.
            WorkerTimedOut: no answer within the timeout; the child was killed.
        """
        connection, process = self._ready()
        try:
            connection.send(task)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None
        deadline = monotonic() + timeout_seconds
        while True:
            ready = wait(
                [connection, process.sentinel],
                timeout=min(max(deadline - monotonic(), 0), _WATCH_SECONDS),
            )
            self._peak_bytes = max(self._peak_bytes, _peak_bytes(process.pid))
            if not ready:
                self._end_if_over(deadline, memory_limit_bytes)
                continue
            try:
                said = connection.recv() if connection in ready or connection.poll() else None
            except (EOFError, ConnectionResetError):
                said = None
            match said:
                case _Stage(name):
                    notify(name)
                case _Answer(Exception() as error):
                    raise error
                case _Answer(outcome):
                    return cast("Outcome", outcome)
                case _:
                    raise self._died()

    def interrupt(self) -> None:
        """Kill the child from another thread, so that a running task ends at once with an error."""
        process = self._process
        if process is not None:
            with suppress(ValueError):  # it has just been closed
                process.kill()

    def close(self) -> None:
        """End the child at once; it holds nothing that needs saving."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            # its two descriptors would else stay open until Python looks for garbage
            self._process.close()
        self._connection = self._process = None

    def _ready(self) -> tuple[Connection, SpawnProcess]:
        if self._process is not None and self._connection is not None and self._process.is_alive():
            return self._connection, self._process
        self.close()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._prepare), daemon=True, name="ctdeface-worker"
        )
        process.start()
        self._starts += 1
        theirs.close()
        self._connection, self._process = ours, process
        return ours, process

    def _end_if_over(self, deadline: float, memory_limit_bytes: int | None) -> None:
        """End the child when its time is up or it holds too much memory."""
        if monotonic() >= deadline:
            self.close()
            raise WorkerTimedOut(
                "no result within the job timeout; raise work.job_timeout for very large cases"
            )
        if (
            memory_limit_bytes is not None
            and self._process is not None
            and _resident_bytes(self._process.pid) > memory_limit_bytes
        ):
            self.close()
            raise OutOfMemory(
                f"the case needs more than the {memory_limit_bytes / 1e9:g} GB of work.memory_limit_gb"
            )

    def _died(self) -> TransientError:
        process = self._process
        if process is not None:
            process.join()
        code = process.exitcode if process is not None else None
        self.close()
        if code == -signal.SIGKILL:
            return OutOfMemory(
                "the process that worked on the case was killed by the system, most likely for its memory"
            )
        return WorkerCrashed(f"the process that worked on the case died (exit code {code})")


def _resident_bytes(pid: int | None) -> int:
    """Return the memory that a process holds; 0 where the system does not say (no /proc)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, ValueError, IndexError):
        return 0


def _peak_bytes(pid: int | None) -> int:
    """Most memory that a process has held since it began; 0 where the system does not say, or when the process is gone."""
    try:
        lines = (
            Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        )
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _serve(connection: Connection, prepare: Prepare[Task, Outcome]) -> None:
    """Answer tasks until the pipe closes; a thread watches the pipe so that even a busy child exits with its parent."""
    # a process of its own: without, a bug's own words and libraries' warnings would be printed as
    # they are
    logs.configure()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent decides
    inbox: list[Task] = []
    arrived = threading.Semaphore(0)

    def watch() -> None:
        try:
            while True:
                inbox.append(connection.recv())
                arrived.release()
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    run = prepare()
    while True:
        arrived.acquire()
        task = inbox.pop(0)
        outcome = boundary(partial(run, task, lambda stage: connection.send(_Stage(stage))))
        if isinstance(outcome, Exception) and not isinstance(outcome, CtDefaceError):
            outcome = UnexpectedError(f"{type(outcome).__name__}: {outcome}")
        connection.send(_Answer(outcome))
