"""Every file of a case is accounted for."""

import hashlib
from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from ctdeface_worker.dicom.reader import CaseFile, FileKind, read_case
from tests.support.ct_files import CtFile


def only(folder: Path) -> CaseFile:
    """The one file of a case."""
    (file,) = read_case(folder).files
    return file


def test_every_file_is_listed_with_size_and_digest(tmp_path: Path) -> None:
    """DICOM, text and empty files in folders at any depth, by their posix names."""
    content = CtFile().content
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "IM0").write_bytes(content)
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    files = {file.name: file for file in read_case(tmp_path).files}
    assert {name: file.kind for name, file in files.items()} == {
        "a/b/IM0": FileKind.DICOM,
        "readme.txt": FileKind.OTHER,
        "Thumbs.db": FileKind.OTHER,
    }
    assert files["a/b/IM0"].size == len(content)
    assert files["a/b/IM0"].sha256 == hashlib.sha256(content).hexdigest()


def test_a_data_set_without_preamble_is_unreadable_and_no_text(tmp_path: Path) -> None:
    """It may be a slice; nothing is read by force."""
    for name, syntax in (("explicit", "1.2.840.10008.1.2.1"), ("implicit", ImplicitVRLittleEndian)):
        content = CtFile(syntax=syntax).content
        (tmp_path / name).write_bytes(content[132:])  # with file meta information
        (tmp_path / f"{name}-bare").write_bytes(content[content.index(b"\x08\x00\x08\x00") :])
    assert {file.kind for file in read_case(tmp_path).files} == {FileKind.UNREADABLE}


def test_elements_behind_a_stray_delimiter_make_a_file_unreadable(tmp_path: Path) -> None:
    """Most readers stop there, so the rest could hide a picture."""
    (tmp_path / "IM1").write_bytes(
        CtFile().content + b"\xfe\xff\x0d\xe0\0\0\0\0" + CtFile().content[132:]
    )
    assert only(tmp_path).kind is FileKind.UNREADABLE
    assert "behind the end" in only(tmp_path).reason


def test_a_dicom_suffix_on_something_else_is_unreadable(tmp_path: Path) -> None:
    """A damaged slice must not pass for text beside the images."""
    (tmp_path / "IM1.dcm").write_bytes(b"not at all")
    assert only(tmp_path).kind is FileKind.UNREADABLE


def test_the_companion_file_of_a_mac_is_not_taken_for_a_damaged_slice(tmp_path: Path) -> None:
    """Macs write ._IM1.dcm beside IM1.dcm on shares."""
    (tmp_path / "._IM1.dcm").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    assert only(tmp_path).kind is FileKind.OTHER


def test_a_file_cut_off_anywhere_in_its_pixel_data_is_unreadable(tmp_path: Path) -> None:
    """In every syntax, and also when only the last byte is missing."""
    for syntax in ("1.2.840.10008.1.2.1", ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        content = CtFile(syntax=syntax).content
        for cut in (2, 9):
            (tmp_path / f"{syntax}-{cut}").write_bytes(content[:-cut])
    assert {file.kind for file in read_case(tmp_path).files} == {FileKind.UNREADABLE}


def test_links_out_of_the_case_are_not_followed_and_not_forgotten(tmp_path: Path) -> None:
    """Such a link may stand for a slice, so the case is not complete."""
    outside, case = tmp_path / "outside", tmp_path / "case"
    outside.mkdir()
    case.mkdir()
    (outside / "IM1").write_bytes(CtFile().content)
    (case / "file").symlink_to(outside / "IM1")
    (case / "folder").symlink_to(outside)
    files = read_case(case).files
    assert [(file.name, file.kind, file.size) for file in files] == [
        ("file", FileKind.UNREADABLE, 0),
        ("folder", FileKind.UNREADABLE, 0),
    ]
