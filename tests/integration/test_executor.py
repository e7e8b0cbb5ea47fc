"""The warm child: answers, stages, errors, and a parent that survives its deaths."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctdeface_shared.errors import MissingSlices, OutOfMemory
from ctdeface_worker.case.child_process import (
    UnexpectedError,
    WarmChild,
    WorkerCrashed,
    WorkerTimedOut,
)

MINUTE = 60.0
_kept: list[object] = []
"""Objects that live as long as the child."""


def _raise(error: Exception) -> None:
    raise error


def _hoard() -> None:
    hoard = b"x" * 600_000_000
    time.sleep(MINUTE)
    del hoard


TASKS: dict[str, Callable[[], object]] = {
    "refuse": lambda: _raise(MissingSlices("slice 4 is missing")),
    "bug": lambda: _raise(KeyError("bug")),
    "memory": lambda: _raise(MemoryError()),
    "die": lambda: os._exit(3),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "greedy": _hoard,
    "semaphore": lambda: _kept.append(multiprocessing.RLock()),
    "hang": lambda: time.sleep(MINUTE),
}


def _prepare() -> Callable[[str, Callable[[str], None]], int]:
    def run(task: str, on_stage: Callable[[str], None]) -> int:
        on_stage(f"starting {task}")
        if task in TASKS:
            TASKS[task]()
        return os.getpid()

    return run


@pytest.fixture
def child() -> Iterator[WarmChild[str, int]]:
    """A warm child that is ended with the test."""
    warm: WarmChild[str, int] = WarmChild(_prepare)
    yield warm
    warm.close()


def ask(
    child: WarmChild[str, int], task: str, heard: list[str] | None = None, timeout: float = MINUTE
) -> int:
    """Run one task."""
    return child.run(
        task, on_stage=(heard if heard is not None else []).append, timeout_seconds=timeout
    )


def test_one_child_answers_many_tasks_and_tells_its_stages(child: WarmChild[str, int]) -> None:
    """The process stays warm between tasks and every stage is heard."""
    heard: list[str] = []
    assert ask(child, "a", heard) == ask(child, "b", heard) != os.getpid()
    assert heard == ["starting a", "starting b"]


def test_children_that_died_leave_no_file_open(child: WarmChild[str, int]) -> None:
    """Also while their errors are kept, whose tracebacks know the process."""
    errors, counts = [], []
    for _ in range(3):
        with pytest.raises(WorkerCrashed) as caught:
            ask(child, "die")
        errors.append(caught.value)
        counts.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
    assert counts == counts[:1] * 3


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ("refuse", MissingSlices),
        ("bug", UnexpectedError),
        ("memory", OutOfMemory),
        ("die", WorkerCrashed),
        ("killed", OutOfMemory),
    ],
)
def test_every_way_to_fail_comes_back_as_its_error_and_the_next_task_works(
    child: WarmChild[str, int], task: str, error: type[Exception]
) -> None:
    """A task that fails or kills its process costs itself only."""
    with pytest.raises(error):
        ask(child, task)
    assert ask(child, "next") > 0


def test_a_child_killed_by_a_signal_is_described_by_what_is_known(
    child: WarmChild[str, int],
) -> None:
    """The signal is known; the memory killer is only one of two possible causes."""
    with pytest.raises(OutOfMemory, match=r"killed by signal 9.*or someone killed it"):
        ask(child, "killed")


def test_an_idle_child_leaves_no_semaphore_behind() -> None:
    """Python warns of leaked semaphores; progress bars of libraries create one."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_executor as t\n"
        "if __name__ == '__main__':\n"
        "    c = t.WarmChild(t._prepare)\n"
        "    t.ask(c, 'semaphore')\n"
        "    c.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, Path(__file__).parent],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_a_task_that_hangs_is_ended_at_its_timeout(child: WarmChild[str, int]) -> None:
    """A hang costs the timeout, then the child is replaced."""
    pid = ask(child, "first")
    with pytest.raises(WorkerTimedOut):
        ask(child, "hang", timeout=0.5)
    assert ask(child, "next") != pid


def test_a_task_that_needs_too_much_memory_is_ended(child: WarmChild[str, int]) -> None:
    """The limit is seen while the task runs, and the next task works."""
    with pytest.raises(OutOfMemory, match="memory_limit_gb"):
        child.run(
            "greedy",
            on_stage=lambda _: None,
            timeout_seconds=MINUTE,
            memory_limit_bytes=400_000_000,
        )
    assert (
        child.run(
            "next", on_stage=lambda _: None, timeout_seconds=MINUTE, memory_limit_bytes=400_000_000
        )
        > 0
    )


def test_a_child_knows_how_often_it_was_started_again_and_what_memory_it_held(
    child: WarmChild[str, int],
) -> None:
    """The first start does not count; the peak grows with what a task holds."""
    ask(child, "a")
    assert (child.restarts, child.peak_bytes > 5_000_000) == (0, True)
    for _ in range(2):
        with pytest.raises(WorkerCrashed):
            ask(child, "die")
    with pytest.raises(OutOfMemory):
        child.run(
            "greedy",
            on_stage=lambda _: None,
            timeout_seconds=MINUTE,
            memory_limit_bytes=400_000_000,
        )
    assert child.restarts == 2
    assert child.peak_bytes > 400_000_000


def test_a_busy_child_exits_when_its_parent_is_killed() -> None:
    """SIGKILL to the parent leaves no process behind."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_executor as t\n"
        "if __name__ == '__main__':\n"
        "    c = t.WarmChild(t._prepare)\n"
        "    print(t.ask(c, 'first'), flush=True)\n"
        "    t.ask(c, 'hang')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, Path(__file__).parent], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split(")")[1].split()[0]
    return state != "Z"
