"""Attempts are counted on the disk."""

from pathlib import Path

from ctdeface_worker.service import attempts


def test_attempts_are_counted_across_processes_and_handed_back_ones_are_not(tmp_path: Path) -> None:
    """Two begun and one handed back is one attempt."""
    folder = tmp_path / "reports" / "a" / "job"
    assert attempts.begun(folder) == 0
    attempts.begin(folder)
    attempts.begin(folder)
    assert attempts.begun(folder) == 2
    attempts.hand_back(folder)
    assert attempts.begun(folder) == 1
