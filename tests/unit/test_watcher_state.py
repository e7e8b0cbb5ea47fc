"""The state file returns what was written."""

import os
from pathlib import Path

from ctdeface_shared.status.watcher_state import (
    WATCHER_STATE,
    WatcherState,
    read_watcher_state,
    write_watcher_state,
)

STATE = WatcherState(
    looked_at="2026-01-02T00:00:00+00:00",
    cases=3,
    waiting=("a", os.fsdecode(b"bytes-\xff")),
    never_settled={"b": 90.5},
    strays=("loose\n.dcm",),
    unusable={"c": "its name is no text"},
    paused="disk",
    open_jobs=2,
    oldest_open_at=1.5,
)


def test_a_state_comes_back_with_names_of_any_bytes(tmp_path: Path) -> None:
    """Also names that are not UTF-8; no temporary file is left."""
    write_watcher_state(tmp_path / WATCHER_STATE, WatcherState(looked_at="earlier"))
    write_watcher_state(tmp_path / WATCHER_STATE, STATE)
    assert read_watcher_state(tmp_path / WATCHER_STATE) == STATE
    assert [path.name for path in tmp_path.iterdir()] == [WATCHER_STATE]


def test_a_missing_or_foreign_file_says_nothing(tmp_path: Path) -> None:
    """The watcher has not scanned yet, or another version has."""
    assert read_watcher_state(tmp_path / "none.json") is None
    (tmp_path / "other.json").write_text('{"seen": 1}', encoding="utf-8")
    assert read_watcher_state(tmp_path / "other.json") is None
    (tmp_path / "half.json").write_text('{"looked_at": ', encoding="utf-8")
    assert read_watcher_state(tmp_path / "half.json") is None
