"""Attempts are counted on the disk."""

from pathlib import Path

from ctdeface_worker import tries


def test_attempts_are_counted_across_processes_and_handed_back_ones_are_not(tmp_path: Path) -> None:
    """Two begun and one handed back is one attempt."""
    folder = tmp_path / "reports" / "a" / "job"
    assert tries.begun(folder) == 0
    tries.begin(folder)
    tries.begin(folder)
    assert tries.begun(folder) == 2
    tries.hand_back(folder)
    assert tries.begun(folder) == 1
