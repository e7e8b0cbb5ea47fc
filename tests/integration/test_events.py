"""The watcher wakes up when something is dropped."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from ctdeface_watcher.events import Wakeups, wakeups


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
    """With the stop set nobody waits for the time to pass."""
    stop = threading.Event()
    stop.set()
    begun = monotonic()
    listening.wait(20.0, stop)
    assert monotonic() - begun < 10.0


def test_polling_lets_time_pass_only(tmp_path: Path) -> None:
    """Without kernel events a drop is no event, and a missing inbox no error."""
    assert not wakeups(tmp_path / "missing", polling=True).wait(0.01, threading.Event())
