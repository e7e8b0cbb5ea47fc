"""The walk that finds case folders."""

from pathlib import Path

import pytest

from ctdeface_shared.storage.case_folders import (
    PathKind,
    is_hidden,
    is_ignored,
    is_unfinished,
    parent_folders,
    walk,
)


def found(root: Path, depth: int) -> list[tuple[str, PathKind]]:
    """Walk without hidden names."""
    return [
        (each.path.relative_to(root).as_posix(), each.kind)
        for each in walk(root, depth, skips=is_hidden)
    ]


@pytest.mark.parametrize(
    ("name", "unfinished"),
    [("a.dcm", False), ("a.dcm.part", True), (".a.dcm.x7Y", True), ("b.TMP", True)],
)
def test_names_tell_files_in_progress(name: str, unfinished: bool) -> None:
    """Suffixes of copying tools and rsync's leading dot."""
    assert is_unfinished(name) is unfinished


def test_patterns_of_ignored_names_are_those_of_a_shell() -> None:
    """A name that matches one of them does not count."""
    assert is_ignored("Thumbs.db", ("*.txt", "Thumbs.*"))
    assert not is_ignored("1.dcm", ("*.txt", "Thumbs.*"))


def test_cases_are_the_folders_at_one_level(tmp_path: Path) -> None:
    """Files, links and hidden names are told apart from them."""
    for name in ("b/2/series", "a/1", "a/.hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert found(tmp_path, 2) == [
        ("a", PathKind.PARENT),
        ("a/1", PathKind.CASE),
        ("a/notes.txt", PathKind.OTHER),
        ("b", PathKind.PARENT),
        ("b/2", PathKind.CASE),
        ("link", PathKind.OTHER),
    ]


def test_a_folder_can_be_a_case_above_the_level(tmp_path: Path) -> None:
    """The batch command takes a folder with DICOM directly in it."""
    (tmp_path / "a" / "1").mkdir(parents=True)
    (entry,) = walk(tmp_path, 2, skips=is_hidden, is_case=lambda folder: folder.name == "a")
    assert (entry.path, entry.level, entry.kind) == (tmp_path / "a", 1, PathKind.CASE)


def test_a_folder_that_is_removed_during_the_walk_is_left_out(tmp_path: Path) -> None:
    """The others are still found."""
    for name in ("a/1", "b/2", "c/3"):
        (tmp_path / name).mkdir(parents=True)
    entries = walk(tmp_path, 2, skips=is_hidden)
    assert next(entries).path.name == "a"
    (tmp_path / "b" / "2").rmdir()
    (tmp_path / "b").rmdir()
    assert [each.path.name for each in entries] == ["1", "c", "3"]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    """An inbox that is not mounted is not an empty one."""
    with pytest.raises(FileNotFoundError):
        list(walk(tmp_path / "missing", 1, skips=is_hidden))


def test_parents_are_the_folders_above_the_cases(tmp_path: Path) -> None:
    """Hidden ones too, as a rename shows them; cases and files are not among them."""
    for name in ("b/2", "a/1", ".c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    names = [each.relative_to(tmp_path).as_posix() for each in parent_folders(tmp_path, 2)]
    assert names == [".", ".c", "a", "b"]
    assert list(parent_folders(tmp_path, 1)) == [tmp_path]
