"""Start processes, restart them after growing pauses, and end them together."""

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Protocol

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import EXIT_CONFIGURATION

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0
"""After this time a process counts as recovered, and its next restart is quick again."""


class Stop(Protocol):
    """The part of an event that the supervisor needs."""

    def wait(self, timeout: float) -> bool:
        """Wait, and return whether the event is set."""

    def is_set(self) -> bool:
        """Return whether the event is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to keep running.

    Attributes:
        name: name on the screen and in errors.
        command: program and arguments; its standard input ends when the supervisor ends.
        log: file for its standard error; None to share the supervisor's.
    """

    name: str
    command: tuple[str, ...]
    log: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A program's process, or the pause before its next start.

    Attributes:
        program: the program.
        process: None during a pause.
        since: when the process or the pause began, monotonic seconds.
        pause: length of the present or next pause in seconds.
        restarts: number of restarts.
    """

    program: Program
    process: "subprocess.Popen[bytes] | None"
    since: float
    pause: float = FIRST_PAUSE_SECONDS
    restarts: int = 0


def supervise(
    programs: Sequence[Program],
    stop: Stop,
    *,
    environment: Mapping[str, str],
    grace_seconds: float,
    tick: Callable[[Sequence[Running]], None],
) -> int:
    """Run the programs until stopped, and return the number of restarts.

    Args:
        programs: the programs.
        stop: ends all processes, with SIGTERM first and SIGKILL after the grace period.
        environment: environment of all processes.
        grace_seconds: time for the processes to end by themselves.
        tick: called twice a second with the processes.

    Raises:
        ConfigurationError: a program ended with exit code 78, because something must be corrected
            first; its own message is on standard error.
    """
    running = [
        _start(Running(program=program, process=None, since=monotonic()), environment)
        for program in programs
    ]
    try:
        while not stop.wait(0.5):
            running = [_restarted(each, environment) for each in running]
            tick(running)
        return sum(each.restarts for each in running)
    finally:
        _end([each.process for each in running if each.process is not None], grace_seconds)


def _start(each: Running, environment: Mapping[str, str]) -> Running:
    with nullcontext(None) if each.program.log is None else each.program.log.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  the arguments are this program's own
            each.program.command,
            stdin=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            # Ctrl-C in the terminal reaches only the supervisor, which then stops each process
            start_new_session=True,
        )
    return replace(each, process=process, since=monotonic())


def _restarted(each: Running, environment: Mapping[str, str]) -> Running:
    """Detect that a process has ended, and restart it after the pause."""
    now = monotonic()
    if each.process is None:
        if now - each.since < each.pause:
            return each
        return _start(replace(each, restarts=each.restarts + 1), environment)
    code = each.process.poll()
    if code is None:
        return each
    _close_stdin(each.process)
    if code == EXIT_CONFIGURATION:
        raise ConfigurationError(f"{each.program.name} cannot run until that is corrected")
    steady = now - each.since >= STEADY_SECONDS
    pause = min(each.pause * 2, LONGEST_PAUSE_SECONDS)
    if steady or each.restarts == 0:
        pause = FIRST_PAUSE_SECONDS
    return replace(each, process=None, since=now, pause=pause)


def _end(processes: Sequence["subprocess.Popen[bytes]"], grace_seconds: float) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = monotonic() + grace_seconds
    for process in processes:
        try:
            process.wait(timeout=max(deadline - monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close_stdin(process)


def _close_stdin(process: "subprocess.Popen[bytes]") -> None:
    """Close this side of a process's standard input."""
    if process.stdin is not None:
        process.stdin.close()
