"""Zip files are unpacked whole or refused."""

import stat
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctdeface_shared.errors import UnsafeArchive
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_watcher.inbox.unzip import ZipLimits, unpack, unpacked_sizes

LIMITS = ZipLimits(files=3, bytes=1000, ratio=5.0)


def _zip(folder: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "case.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return folder / "case.zip"


def test_a_zip_file_becomes_a_case(tmp_path: Path) -> None:
    """Files are where the zip file lists them, and nothing else is left."""
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
        {"dense.dcm": bytes(999)},
        {"1": b"", "2": b"", "3": b"", "4": b""},
        {"a": b"x", "a/b": b"x"},
        {"a/b": b"x", "a": b"x"},
        {".": b"x"},
        {"a/./b": b"x", "a/b": b"x"},
        {"n" * 300: b"x"},
        {"sub/.1.dcm.Xy": b"x"},
        {"1.dcm.part": b"x"},
        {"a/" * 600 + "1.dcm": b"x"},
        {"__MACOSX/._1.dcm": b"x"},
        {},
    ],
    ids=[
        "parent",
        "absolute",
        "backslash",
        "bomb",
        "ratio",
        "many",
        "file-as-folder",
        "folder-as-file",
        "dot",
        "one-name-twice",
        "long-name",
        "hidden",
        "unfinished",
        "deep",
        "nothing-but-additions",
        "empty",
    ],
)
def test_an_unsafe_zip_file_is_refused(content: dict[str, bytes], tmp_path: Path) -> None:
    """Nothing of it is left, inside or outside."""
    archive = _zip(tmp_path, content)
    with pytest.raises(UnsafeArchive):
        unpack(archive, tmp_path / "case", LIMITS)
    assert list(tmp_path.iterdir()) == [archive]


def test_a_zip_file_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    """What is written is counted, not what the directory says."""
    archive = _zip(tmp_path, {"1.dcm": bytes(3000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<I", 3000), struct.pack("<I", 100)))
    with pytest.raises(UnsafeArchive):
        unpack(archive, tmp_path / "case", LIMITS)
    assert list(tmp_path.iterdir()) == [archive]


def test_an_encrypted_zip_file_and_a_link_are_refused(tmp_path: Path) -> None:
    """By the flags of their directory entries."""
    archive = _zip(tmp_path, {"1.dcm": b"x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(UnsafeArchive, match="encrypted"):
        unpack(archive, tmp_path / "case", LIMITS)
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeArchive, match="link"):
        unpack(archive, tmp_path / "case", LIMITS)


@settings(max_examples=40, deadline=None)
@given(place=st.integers(min_value=0, max_value=400), value=st.integers(min_value=0, max_value=255))
def test_whatever_byte_of_a_zip_file_is_damaged_it_is_unpacked_or_refused(
    place: int, value: int
) -> None:
    """No other error, and nothing beside the case."""
    with TemporaryDirectory() as folder:
        archive = _zip(Path(folder), {"a/1.dcm": b"one" * 20, "2.dcm": b"two"})
        content = bytearray(archive.read_bytes())
        content[place % len(content)] = value
        archive.write_bytes(content)
        with suppress(UnsafeArchive):
            unpack(archive, Path(folder) / "case", LIMITS)
        assert {path.name for path in Path(folder).iterdir()} <= {"case", "case.zip"}


def test_the_same_zip_file_gives_the_same_case_again(tmp_path: Path) -> None:
    """Names, sizes and times; an invalid date becomes the first possible one."""
    archive = _zip(tmp_path, {"a/1.dcm": b"one", "2.dcm": b"two", "__MACOSX/._2.dcm": b"x"})
    archive.write_bytes(archive.read_bytes().replace(struct.pack("<H", 33), struct.pack("<H", 0)))
    unpack(archive, tmp_path / "case", LIMITS)
    unpack(archive, tmp_path / "again", LIMITS)
    assert Manifest.scan(tmp_path / "case") == Manifest.scan(tmp_path / "again")
    times = {(tmp_path / name / "2.dcm").stat().st_mtime for name in ("case", "again")}
    assert len(times) == 1
    assert unpacked_sizes(archive) == {"a/1.dcm": 3, "2.dcm": 3}


def test_what_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    """Bytes that are no archive are refused by name."""
    (tmp_path / "case.zip").write_bytes(b"no archive")
    with pytest.raises(UnsafeArchive):
        unpack(tmp_path / "case.zip", tmp_path / "case", LIMITS)
