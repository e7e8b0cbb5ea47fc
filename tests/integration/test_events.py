"""The watcher wakes up when something is dropped."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from ctdeface_watcher.inbox.events import Wakeups, wakeups


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Wakeups]:
    """Kernel events of an inbox."""
    (tmp_path / "inbox").mkdir()
    with closing(wakeups(tmp_path / "inbox", polling=False)) as events:
        yield events


def test_a_dropped_folder_wakes_the_watcher(listening: Wakeups, tmp_path: Path) -> None:
    """An event comes long before the time is over."""
    begun = monotonic()
    (tmp_path / "inbox/case").mkdir()
    assert listening.wait(20.0, threading.Event())
    assert monotonic() - begun < 10.0


def test_an_inbox_made_anew_is_listened_to(listening: Wakeups, tmp_path: Path) -> None:
    """After the inbox was removed and made again, a drop into the new one is an event."""
    never = threading.Event()
    shutil.rmtree(tmp_path / "inbox")
    while listening.wait(0.5, never):
        pass
    (tmp_path / "inbox").mkdir()
    while listening.wait(0.5, never):
        pass
    (tmp_path / "inbox/case").mkdir()
    assert listening.wait(20.0, never)


def test_a_stop_ends_the_waiting(listening: Wakeups) -> None:
    """The wait ends long before its time."""
    stop = threading.Event()
    stop.set()
    begun = monotonic()
    listening.wait(20.0, stop)
    assert monotonic() - begun < 10.0


def test_polling_lets_time_pass_only(tmp_path: Path) -> None:
    """Without kernel events a drop is no event, and a missing inbox no error."""
    assert not wakeups(tmp_path / "missing", polling=True).wait(0.01, threading.Event())


def test_cases_that_came_and_went_leave_no_watch_behind(listening: Wakeups, tmp_path: Path) -> None:
    """Only the inbox is watched; a moved folder would keep its watch forever."""
    for number in range(20):
        case = tmp_path / "inbox" / f"case-{number}"
        (case / "series").mkdir(parents=True)
        listening.wait(0.01, threading.Event())
        case.rename(tmp_path / case.name)
    assert _watches() == 1


def test_the_parents_of_deeper_cases_are_listened_to(tmp_path: Path) -> None:
    """Also one that was made later."""
    never = threading.Event()
    (tmp_path / "inbox").mkdir()
    with closing(wakeups(tmp_path / "inbox", polling=False, depth=2)) as events:
        (tmp_path / "inbox/site").mkdir()
        while events.wait(0.5, never):
            pass
        (tmp_path / "inbox/site/case").mkdir()
        assert events.wait(20.0, never)
        assert _watches() == 2


def test_without_watches_of_the_kernel_time_goes_on_and_it_is_logged_once(tmp_path: Path) -> None:
    """A process without free file descriptors logs one line and goes on."""
    program = """
import sys, threading
from pathlib import Path
from ctdeface_shared import logs
from ctdeface_watcher.inbox.events import wakeups
logs.configure()
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
events = wakeups(Path(sys.argv[1]), polling=False)
print([events.wait(0.01, threading.Event()) for _ in range(3)], threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[False, False, False] 1"
    assert [line.count("events_unavailable") for line in done.stderr.splitlines()] == [1]
    assert "EMFILE" in done.stderr


def _watches() -> int:
    """Count the watches that this process holds."""
    return sum(
        line.startswith("inotify ")
        for file in Path("/proc/self/fdinfo").iterdir()
        for line in _lines(file)
    )


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []
