"""Small files of the service are read only if they are regular and of limited size."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.reports import read_report
from ctdeface_shared.status.watcher_state import read_watcher_state
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import DamagedFile, parse_json, read_bounded
from ctdeface_shared.storage.tree import walk_tree
from tests.support.service.damage import DEEP, nested_folders


def make_sparse(path: Path) -> None:
    """Make a file of 50 GB that uses no disk."""
    path.touch()
    os.truncate(path, 50_000_000_000)


FAKES: dict[str, Callable[[Path], None]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "link": lambda path: path.symlink_to("other.json"),
    "sparse": make_sparse,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fake", FAKES)
def test_what_is_no_small_file_is_not_read(tmp_path: Path, fake: str) -> None:
    """A pipe would block the reader for ever, a sparse file would use up its memory."""
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    file = tmp_path / "report.json"
    FAKES[fake](file)
    with pytest.raises(DamagedFile):
        read_bounded(file, 1_000_000)
    assert read_report(file) is None
    assert read_watcher_state(file) is None


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    """One byte more is too much."""
    (tmp_path / "file").write_bytes(b"1234")
    assert read_bounded(tmp_path / "file", 4) == b"1234"
    with pytest.raises(DamagedFile, match="4 bytes or more, at most 3"):
        read_bounded(tmp_path / "file", 3)


@pytest.mark.parametrize("levels", [1_100, 200_000])
def test_json_that_is_nested_deeply_is_damaged(levels: int) -> None:
    """Python's parser ends with a RecursionError, which no reader expected."""
    with pytest.raises(DamagedFile):
        parse_json(b"[" * levels + b"]" * levels)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fake", FAKES)
def test_a_log_of_attempts_that_is_none_is_set_aside(tmp_path: Path, fake: str) -> None:
    """The attempt is counted in a new one, and what was there can be examined."""
    (tmp_path / "other.json").touch()
    FAKES[fake](tmp_path / "attempts.log")
    assert attempt_log.read(tmp_path).count == 0
    if fake == "sparse":
        return  # it can be appended to, and the queue counts as well
    attempt_log.begin(tmp_path)
    assert attempt_log.read(tmp_path).count == 1
    assert list(tmp_path.glob("attempts.log.damaged-*"))


def test_a_folder_in_the_place_of_a_file_is_set_aside(tmp_path: Path) -> None:
    """Otherwise the report of a case could never be written again."""
    (tmp_path / "report.json" / "inside").mkdir(parents=True)
    atomic.write_file(tmp_path / "report.json", b"{}")
    assert (tmp_path / "report.json").read_bytes() == b"{}"
    assert [path.name for path in tmp_path.glob("report.json.damaged-*/*")] == ["inside"]


def test_a_walk_has_no_largest_depth(tmp_path: Path) -> None:
    """Folders beyond the longest path are reported; `os.walk` ends with a RecursionError."""
    (tmp_path / "z").mkdir()
    errors: list[OSError] = []
    with nested_folders(tmp_path / "deep"):
        folders = [Path(folder) for folder, _ in walk_tree(tmp_path, errors.append)]
    assert tmp_path / "z" in folders
    assert 1_500 < len(folders) < DEEP
    assert len(errors) == 1
