"""Zip files are unpacked whole or refused."""

import zipfile
from pathlib import Path

import pytest

from ctdeface_watcher.unzip import Limits, UnsafeArchive, unpack

LIMITS = Limits(files=3, bytes=1000)


def _zip(folder: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "case.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return folder / "case.zip"


def test_a_zip_file_becomes_a_case(tmp_path: Path) -> None:
    """Files lie where the archive says, and nothing else is left."""
    unpack(_zip(tmp_path, {"a/1.dcm": b"one", "2.dcm": b"two"}), tmp_path / "case", LIMITS)
    assert (tmp_path / "case/a/1.dcm").read_bytes() == b"one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case", "case.zip"]


@pytest.mark.parametrize(
    "content",
    [
        {"../out.dcm": b"x"},
        {"/abs.dcm": b"x"},
        {"a\\..\\b.dcm": b"x"},
        {"bomb.dcm": bytes(1001)},
        {"1": b"", "2": b"", "3": b"", "4": b""},
        {"a": b"x", "a/b": b"x"},
    ],
    ids=["parent", "absolute", "backslash", "bomb", "many", "file-as-folder"],
)
def test_an_unsafe_zip_file_is_refused(content: dict[str, bytes], tmp_path: Path) -> None:
    """Nothing of it is left, inside or outside."""
    archive = _zip(tmp_path, content)
    with pytest.raises(UnsafeArchive):
        unpack(archive, tmp_path / "case", LIMITS)
    assert list(tmp_path.iterdir()) == [archive]


def test_what_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    """Bytes that are no archive are refused by name."""
    (tmp_path / "case.zip").write_bytes(b"no archive")
    with pytest.raises(UnsafeArchive):
        unpack(tmp_path / "case.zip", tmp_path / "case", LIMITS)
