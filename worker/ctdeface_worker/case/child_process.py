"""Tasks in a warm child process that may crash.

A crash, a hang or the kernel's out-of-memory killer costs one task, never the parent. The child
prepares itself once (`prepare`, for example by loading a model) and then answers tasks over a pipe.
It exits when the pipe closes, so a parent that dies, even by SIGKILL, leaves no process behind.
Only the parent publishes; nothing that the child writes is visible to users.
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
from queue import SimpleQueue
from time import monotonic
from typing import Generic, TypeAlias, TypeVar, cast

from ctdeface_shared import logs
from ctdeface_shared.errors import CtDefaceError, OutOfMemory, TransientError
from ctdeface_shared.lifecycle import boundary

_WATCH_SECONDS = 0.5
"""Interval between two checks of a busy child's time and memory."""
_EXIT_SECONDS = 5.0
"""Time for an idle child to exit by itself before it is killed."""

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
OnStage: TypeAlias = Callable[[str], None]
"""Called with the name of each stage when it begins."""
Run: TypeAlias = Callable[[Task, OnStage], Outcome]
Prepare: TypeAlias = Callable[[], Run[Task, Outcome]]


class WorkerCrashed(TransientError):
    """The child process died while it worked on the case."""


class WorkerTimedOut(TransientError):
    """The case took longer than the job timeout."""


class UnexpectedError(TransientError):
    """A bug: an error of a class not our own.

    The log has its traceback.
    """


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str


@dataclass(frozen=True, slots=True)
class _Answer:
    outcome: object


class WarmChild(Generic[Task, Outcome]):
    """One child process, replaced when it died."""

    def __init__(self, prepare: Prepare[Task, Outcome]) -> None:
        """Keep the function that prepares the child.

        Args:
            prepare: must be importable, because the child starts from scratch (spawn).
        """
        self._prepare = prepare
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._starts = 0
        self._peak_bytes = 0

    @property
    def restarts(self) -> int:
        """Number of times that the process had to be started again."""
        return max(self._starts - 1, 0)

    @property
    def peak_bytes(self) -> int:
        """Peak memory of all its processes, 0 without /proc."""
        return self._peak_bytes

    def run(
        self,
        task: Task,
        *,
        on_stage: OnStage,
        timeout_seconds: float,
        memory_limit_bytes: int | None = None,
    ) -> Outcome:
        """Run one task in the child and return its outcome.

        Args:
            task: sent to the child.
            on_stage: called with the name of each stage.
            timeout_seconds: after which the child is killed.
            memory_limit_bytes: resident memory above which the child is killed; None for no limit.

        Raises:
            CtDefaceError: the error that the task raised.
            OutOfMemory: the child ran out of memory, exceeded the limit or was killed by signal 9.
            WorkerCrashed: the child died for any other reason.
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
                message = connection.recv() if connection in ready or connection.poll() else None
            except (EOFError, ConnectionResetError):
                message = None
            match message:
                case _Stage(name):
                    on_stage(name)
                case _Answer(Exception() as error):
                    raise error
                case _Answer(outcome):
                    return cast("Outcome", outcome)
                case _:
                    raise self._died()

    def interrupt(self) -> None:
        """Kill the child from another thread.

        Its task fails immediately.
        """
        process = self._process
        if process is not None:
            with suppress(ValueError):  # it has just been closed
                process.kill()

    def close(self) -> None:
        """End the child.

        An idle child exits by itself; a busy one is killed.
        """
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(_EXIT_SECONDS)
            self._end_process()
        self._connection = self._process = None

    def _kill(self) -> None:
        """Kill the child, even in the middle of a task."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._end_process()
        self._connection = self._process = None

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            # Its two descriptors would otherwise stay open until the garbage collection.
            self._process.close()

    def _ready(self) -> tuple[Connection, SpawnProcess]:
        if self._process is not None and self._connection is not None and self._process.is_alive():
            return self._connection, self._process
        self._kill()
        context = multiprocessing.get_context("spawn")
        connection, child_connection = context.Pipe()
        process = context.Process(
            target=_serve,
            args=(child_connection, self._prepare),
            daemon=True,
            name="ctdeface-worker",
        )
        process.start()
        self._starts += 1
        child_connection.close()
        self._connection, self._process = connection, process
        return connection, process

    def _end_if_over(self, deadline: float, memory_limit_bytes: int | None) -> None:
        """Kill a child that exceeds its time or its memory.

        Raises:
            WorkerTimedOut: the deadline has passed.
            OutOfMemory: the child holds more memory than allowed.
        """
        if monotonic() >= deadline:
            self._kill()
            raise WorkerTimedOut(
                "the case took longer than work.job_timeout allows: raise it for very large cases"
            )
        if (
            memory_limit_bytes is not None
            and self._process is not None
            and _resident_bytes(self._process.pid) > memory_limit_bytes
        ):
            self._kill()
            raise OutOfMemory(
                "the case needs more memory than work.memory_limit_gb allows "
                f"({memory_limit_bytes / 1e9:g} GB): raise it, or use a machine with more memory"
            )

    def _died(self) -> TransientError:
        process = self._process
        if process is not None:
            process.join()
        code = process.exitcode if process is not None else None
        self._kill()
        if code == -signal.SIGKILL:
            return OutOfMemory(
                "the process that worked on the case was killed by signal 9: "
                "the kernel does this when memory runs out, or someone killed it"
            )
        return WorkerCrashed(f"the process that worked on the case died (exit code {code})")


def _resident_bytes(pid: int | None) -> int:
    """Return the memory that a process holds, 0 without /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes(pid: int | None) -> int:
    """Return the peak memory of a process, 0 without /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    peaks = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(line.split()[1]) * 1024 for line in peaks), 0)


def _serve(connection: Connection, prepare: Prepare[Task, Outcome]) -> None:
    """Answer tasks until the pipe closes.

    A busy child then exits in the middle of its task.
    """
    # A new process: without this, texts of bugs and warnings of libraries would be printed raw.
    logs.configure()
    # Ctrl-C reaches the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks: SimpleQueue[Task | None] = SimpleQueue()
    received = answered = 0

    def watch() -> None:
        nonlocal received
        try:
            while True:
                task: Task = connection.recv()
                received += 1
                tasks.put(task)
        except (EOFError, OSError):
            if received > answered:
                os._exit(0)
            tasks.put(None)

    threading.Thread(target=watch, daemon=True).start()
    run = prepare()
    # An idle child returns, so that its semaphores are released; a busy one exits in `watch`.
    while (task := tasks.get()) is not None:
        outcome = boundary(partial(run, task, lambda stage: connection.send(_Stage(stage))))
        if isinstance(outcome, Exception) and not isinstance(outcome, CtDefaceError):
            outcome = UnexpectedError(f"{type(outcome).__name__}: {outcome}")
        answered += 1  # before the answer, because the parent may close the pipe immediately
        connection.send(_Answer(outcome))
