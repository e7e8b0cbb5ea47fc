"""Reads a case: every file once, every file accounted for, and nothing guessed (pydicom's force is never used)."""

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.dicom.layout import (
    DICOM_SUFFIXES,
    PREAMBLE,
    Layout,
    looks_like_bare_data_set,
    parse,
)

_APPLE_DOUBLE = b"\x00\x05\x16\x07"


class FileKind(StrEnum):
    """What a file of the case is."""

    DICOM = "dicom"
    DICOMDIR = "dicomdir"
    UNREADABLE = "unreadable"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """A DICOM file that could be read.

    Attributes:
        content: the whole file.
        layout: where its elements lie.
        header: the data set before the pixel data, file meta information included.
    """

    content: bytes = field(repr=False)
    layout: Layout = field(repr=False)
    header: pydicom.FileDataset = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """One file of the case.

    Attributes:
        name: posix path relative to the case's folder.
        size: bytes.
        sha256: of the content; of nothing for what is no regular file.
        kind: what it is.
        reason: why it is unreadable or no DICOM, for a person.
        dicom: what was read, for the kinds dicom and dicomdir.
    """

    name: str
    size: int
    sha256: str
    kind: FileKind
    reason: str = ""
    dicom: DicomFile | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFiles:
    """Every file of a case, ordered by name."""

    root: Path
    files: tuple[CaseFile, ...]


def read_case(root: Path) -> CaseFiles:
    """Read every file below a folder, each once.

    Links are not followed out of the case: a link that leads there may stand for a slice, so it
        counts as unreadable.

    Raises:
        OSError: a file or folder cannot be read by this user, or went away.
    """
    inside = root.resolve()
    with warnings.catch_warnings(
        action="ignore"
    ):  # complaints about single values; those that are used are checked where they are
        files = tuple(
            _read(path, path.relative_to(root).as_posix(), inside)
            for path in sorted(_entries(root))
        )
    return CaseFiles(root=root, files=files)


def read_files(root: Path, names: Iterable[str]) -> CaseFiles:
    """Read only these files below a folder, given by their posix paths relative to it.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    inside = root.resolve()
    with warnings.catch_warnings(action="ignore"):  # as above: they quote header values
        return CaseFiles(
            root=root, files=tuple(_read(root / name, name, inside) for name in sorted(names))
        )


def _entries(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
            else:
                yield Path(entry.path)


def _read(path: Path, name: str, inside: Path) -> CaseFile:
    if path.is_symlink():
        target = path.resolve()
        if not target.is_relative_to(inside) or not target.exists():
            return _without_content(
                name,
                FileKind.UNREADABLE,
                "a link that leads out of the case or nowhere is not followed",
            )
        if target.is_dir():
            return _without_content(
                name,
                FileKind.OTHER,
                "a link to a folder of the same case, which is read in its own place",
            )
    if not stat.S_ISREG(path.stat().st_mode):
        return _without_content(name, FileKind.OTHER, "not a regular file")
    content = path.read_bytes()
    kind, reason, dicom = _understand(content, path.suffix.lower())
    return CaseFile(
        name=name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        kind=kind,
        reason=reason,
        dicom=dicom,
    )


def _without_content(name: str, kind: FileKind, reason: str) -> CaseFile:
    return CaseFile(
        name=name, size=0, sha256=hashlib.sha256().hexdigest(), kind=kind, reason=reason
    )


def _understand(content: bytes, suffix: str) -> tuple[FileKind, str, DicomFile | None]:
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        if looks_like_bare_data_set(content):
            return (
                FileKind.UNREADABLE,
                "a DICOM data set without the preamble that DICOM files begin with",
                None,
            )
        if suffix in DICOM_SUFFIXES and not content.startswith(_APPLE_DOUBLE):
            return FileKind.UNREADABLE, f"named {suffix} but not readable as DICOM", None
        return FileKind.OTHER, "not DICOM", None
    try:
        dicom = _parse(content)
    except UnreadableInstance as error:
        return FileKind.UNREADABLE, str(error), None
    directory = (
        dicom.header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    )
    return (FileKind.DICOMDIR if directory else FileKind.DICOM), "", dicom


def _parse(content: bytes) -> DicomFile:
    """Read by pydicom and by the byte layout; where the two disagree about the pixel data nothing is trusted."""
    layout = parse(content)
    stream = BytesIO(content)
    try:
        header = pydicom.dcmread(stream, stop_before_pixels=True)
    except (InvalidDicomError, ValueError, KeyError, EOFError, NotImplementedError) as error:
        raise UnreadableInstance(f"not readable as DICOM: {error}") from error
    pixels = layout.pixel_data
    if pixels is not None and not layout.deflated and stream.tell() != pixels.start:
        raise UnreadableInstance("two readers disagree about where the pixel data lies")
    return DicomFile(content=content, layout=layout, header=header)
