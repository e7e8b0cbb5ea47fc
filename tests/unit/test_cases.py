"""Which folders are cases."""

from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.batch.discovery import find_cases, left_out
from tests.support.ct_files import CtFile

DICOM = b"\0" * 128 + b"DICM"


def put(root: Path, *names: str, content: bytes = DICOM) -> None:
    """Write files with the given content."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def names(root: Path, depth: int = 1) -> list[str]:
    """Names of the cases found."""
    return [case.name for case in find_cases(root, depth=depth)]


def test_every_first_level_folder_with_dicom_somewhere_below_is_a_case(tmp_path: Path) -> None:
    """Patient/study/series trees are found whole, not only flat folders."""
    put(tmp_path, "b/1", "a/study/series/IM0")
    assert names(tmp_path) == ["a", "b"]


def test_dicom_directly_in_the_root_makes_the_root_one_case(tmp_path: Path) -> None:
    """The root's own name becomes the case's name, and folders below belong to it."""
    root = tmp_path / "patient"
    put(root, "IM0", "more/IM1")
    assert names(root) == ["patient"]


def test_a_stray_file_that_makes_the_root_one_case_is_named(tmp_path: Path) -> None:
    """The case knows the file and the remedy; a root without folders of DICOM needs no remedy."""
    root = tmp_path / "scans"
    put(root, "b/1", "a/1", "IM0")
    (case,) = find_cases(root)
    assert case.stray == root / "IM0"
    assert case.stray_warning.startswith("IM0 is directly in scans, so this folder and all folders")
    assert "move the file into a folder of its own" in case.stray_warning
    (flat,) = find_cases(root / "a")
    assert (flat.stray, flat.stray_warning) == (None, "")


def test_a_stray_file_is_named_above_a_deeper_case_depth(tmp_path: Path) -> None:
    """With depth 2 only the folders above that depth can have a stray file."""
    put(tmp_path, "a/IM0", "a/x/IM0", "b/y/IM0", "b/y/deep/IM0")
    strays = {case.name: case.stray for case in find_cases(tmp_path, depth=2)}
    assert strays == {"a": tmp_path / "a" / "IM0", "b/y": None}


def test_case_depth_moves_the_boundary_and_stops_where_dicom_lies(tmp_path: Path) -> None:
    """With depth 2 a case is named a/b; DICOM above that depth makes a case there."""
    put(tmp_path, "a/x/IM0", "a/y/deep/IM0", "flat/IM0")
    assert names(tmp_path, depth=2) == ["a/x", "a/y", "flat"]


def test_folders_without_anything_like_dicom_are_no_cases(tmp_path: Path) -> None:
    """Text and empty folders are left alone; hidden folders and links out of the root as well."""
    put(tmp_path, "notes/readme.txt", ".cache/IM0.dcm", content=b"hello")
    (tmp_path / "empty").mkdir()
    put(tmp_path.parent / f"{tmp_path.name}-elsewhere", "IM0")
    (tmp_path / "link").symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    assert names(tmp_path) == []


def test_a_data_set_without_preamble_and_suffix_makes_a_case(tmp_path: Path) -> None:
    """It is refused with a reason, not overlooked."""
    put(tmp_path, "a/IM0001", content=CtFile().content[132:])
    assert names(tmp_path) == ["a"]


def test_what_looks_like_a_case_and_holds_none_is_told(tmp_path: Path) -> None:
    """Folders without DICOM, links and zip files, but neither hidden entries nor texts."""
    put(tmp_path, "a/IM0", "b/deep/IM0", ".hidden/IM0")
    put(tmp_path, "zipped/a.zip", "b.zip", "readme.txt", content=b"hello")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert left_out(tmp_path, find_cases(tmp_path)) == ("b.zip", "link", "zipped")
    assert left_out(tmp_path, find_cases(tmp_path, depth=2)) == ("b.zip", "link", "zipped")
    assert left_out(tmp_path / "a", find_cases(tmp_path / "a")) == ()


def test_a_damaged_file_with_a_dicom_suffix_still_makes_a_case(tmp_path: Path) -> None:
    """It must be reported, not overlooked."""
    put(tmp_path, "a/broken.DCM", content=b"")
    assert names(tmp_path) == ["a"]


def test_a_missing_root_says_so(tmp_path: Path) -> None:
    """The message names the folder."""
    with pytest.raises(ConfigurationError, match="nowhere is not a folder"):
        find_cases(tmp_path / "nowhere")
