"""Processes are started, restarted after a death, and ended together."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.local_service.supervisor import Program, Running, supervise

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print(flush=True); time.sleep(60)"
)


def run(
    code: str, stop: threading.Event, tick: "list[Sequence[Running]]", grace: float = 5.0
) -> int:
    """Supervise one Python program until `stop` is set, collecting what every tick shows."""
    program = Program(name="a", command=(sys.executable, "-c", code))
    return supervise([program], stop, environment=os.environ, grace_seconds=grace, tick=tick.append)


def test_a_program_that_dies_is_started_again(tmp_path: Path) -> None:
    """Each start writes a line; two lines prove a restart."""
    starts = tmp_path / "starts"
    stop = threading.Event()
    threading.Thread(
        target=stop_when,
        args=(stop, lambda: starts.exists() and starts.read_text().count("x") >= 2),
        daemon=True,
    ).start()
    assert run(f"open({str(starts)!r}, 'a').write('x')", stop, []) >= 1


def test_a_program_that_must_be_configured_ends_everything() -> None:
    """Exit code 78 is not tried again."""
    with pytest.raises(ConfigurationError, match="a cannot run"):
        run("raise SystemExit(78)", threading.Event(), [])


def test_stopping_ends_also_a_program_that_does_not_listen() -> None:
    """SIGKILL follows after the grace period."""
    stop, seen = threading.Event(), list[Sequence[Running]]()
    threading.Thread(target=stop_when, args=(stop, lambda: len(seen) > 2), daemon=True).start()
    run(STUBBORN, stop, seen, grace=0.3)
    process = seen[-1][0].process
    assert process is not None
    assert process.returncode == -signal.SIGKILL


def stop_when(stop: threading.Event, condition: Callable[[], bool]) -> None:
    """Set the event when the condition holds, or after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
