"""Keeps a few processes running: starts them, restarts what dies with growing pauses, and ends them together."""

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
"""A process that ran this long has recovered: its next restart is quick again."""


class Stop(Protocol):
    """An event to wait for."""

    def wait(self, timeout: float) -> bool:
        """Wait and return whether it is set."""

    def is_set(self) -> bool:
        """Whether it is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process that shall run.

    Attributes:
        name: for a person.
        command: program and arguments; its standard input ends when the supervisor does.
        log: file that takes its standard error; None leaves it the supervisor's.
    """

    name: str
    command: tuple[str, ...]
    log: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A program's process, or the pause before its next start.

    Attributes:
        program: what runs.
        process: None during a pause.
        since: when the process or the pause began, monotonic seconds.
        pause: how long the present or next pause is.
        restarts: how often it had to be started again.
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
    """Run the programs until stopped, and return how many restarts there were.

    Args:
        programs: what to run.
        stop: ends everything: SIGTERM first, SIGKILL after the grace.
        environment: of all processes.
        grace_seconds: how long they have to end by themselves.
        tick: called twice a second with what is running.

    Raises:
        ConfigurationError: a program ended because something must be put right first (exit 78); its
            own words are on standard error.
    """
    running = [
        _start(Running(program=program, process=None, since=monotonic()), environment)
        for program in programs
    ]
    try:
        while not stop.wait(0.5):
            running = [_care_for(each, environment) for each in running]
            tick(running)
        return sum(each.restarts for each in running)
    finally:
        _end([each.process for each in running if each.process is not None], grace_seconds)


def _start(each: Running, environment: Mapping[str, str]) -> Running:
    with nullcontext(None) if each.program.log is None else each.program.log.open("ab") as log:
        process = subprocess.Popen(
            each.program.command,
            stdin=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            # Ctrl-C of the terminal reaches the supervisor only, which then asks each process to
            # end
            start_new_session=True,
        )
    return replace(each, process=process, since=monotonic())


def _care_for(each: Running, environment: Mapping[str, str]) -> Running:
    """Notice a death, and start again when the pause is over."""
    now = monotonic()
    if each.process is None:
        return (
            _start(replace(each, restarts=each.restarts + 1), environment)
            if now - each.since >= each.pause
            else each
        )
    code = each.process.poll()
    if code is None:
        return each
    _let_go(each.process)
    if code == EXIT_CONFIGURATION:
        raise ConfigurationError(f"{each.program.name} cannot run until that is put right")
    steady = now - each.since >= STEADY_SECONDS
    pause = (
        FIRST_PAUSE_SECONDS
        if steady or each.restarts == 0
        else min(each.pause * 2, LONGEST_PAUSE_SECONDS)
    )
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
        _let_go(process)


def _let_go(process: "subprocess.Popen[bytes]") -> None:
    """Close our end of a process's standard input."""
    if process.stdin is not None:
        process.stdin.close()
