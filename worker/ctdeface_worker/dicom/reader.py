"""Read every file of a case once.

pydicom's `force=True` is never used: a file that is not clearly DICOM is not parsed as such.
"""

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
from ctdeface_shared.jobs.identity import DICOM_SUFFIXES
from ctdeface_worker.dicom.layout import (
    PREAMBLE,
    Layout,
    looks_like_bare_data_set,
    parse,
)
from ctdeface_worker.dicom.limits import USUAL_LIMITS, ReadLimits

_NO_PREAMBLE = (
    "a DICOM data set without the required preamble (DICOM PS3.10 section 7.1): send the file "
    "again as a DICOM file"
)
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


class FileKind(StrEnum):
    """Kind of a file in a case."""

    DICOM = "dicom"
    DICOMDIR = "dicomdir"
    UNREADABLE = "unreadable"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """A readable DICOM file.

    Attributes:
        content: the whole file.
        layout: byte offsets of its elements.
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
        sha256: of the content; of no bytes if it is not a regular file.
        kind: DICOM, DICOMDIR, unreadable or other.
        reason: why it is unreadable or not DICOM, for a person.
        dicom: the parsed file, for the kinds dicom and dicomdir.
    """

    name: str
    size: int
    sha256: str
    kind: FileKind
    reason: str = ""
    dicom: DicomFile | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFiles:
    """All files of a case, ordered by name."""

    root: Path
    files: tuple[CaseFile, ...]


def read_case(root: Path, limits: ReadLimits = USUAL_LIMITS) -> CaseFiles:
    """Read every file below a folder, each once.

    Links are not followed out of the case. Such a link may stand for a slice, so it is unreadable.

    Raises:
        TooLarge: a file, or all of them together, exceed the limits.
        OSError: a file or folder cannot be read by this user, or disappeared.
    """
    names = [path.relative_to(root).as_posix() for path in sorted(_entries(root))]
    return _read_all(root, names, limits)


def read_files(root: Path, names: Iterable[str]) -> CaseFiles:
    """Read the named files below a folder.

    Names are posix paths relative to the folder.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    return _read_all(root, sorted(names), USUAL_LIMITS)


def _read_all(root: Path, names: Iterable[str], limits: ReadLimits) -> CaseFiles:
    resolved = root.resolve()
    files: list[CaseFile] = []
    held = 0
    # pydicom's warnings quote header values; values that matter are checked where they are used.
    with warnings.catch_warnings(action="ignore"):
        for name in names:
            files.append(_read(root / name, name, resolved, limits))
            held += _held_bytes(files[-1])
            limits.check_held(held)
    return CaseFiles(root=root, files=tuple(files))


def _held_bytes(file: CaseFile) -> int:
    """Return the bytes of a file that stay in memory."""
    if file.dicom is None:
        return 0
    inflated = len(file.dicom.layout.data) if file.dicom.layout.deflated else 0
    return file.size + inflated


def _entries(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
            else:
                yield Path(entry.path)


def _read(path: Path, name: str, inside: Path, limits: ReadLimits) -> CaseFile:
    if path.is_symlink():
        target = path.resolve()
        if not target.is_relative_to(inside) or not target.exists():
            return _without_content(
                name,
                FileKind.UNREADABLE,
                "a link that leads out of the case or nowhere, and is not followed: send the file",
            )
        if target.is_dir():
            return _without_content(
                name,
                FileKind.OTHER,
                "a link to a folder of the same case, which is read by itself",
            )
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return _without_content(name, FileKind.OTHER, "not a regular file")
    limits.check_file(name, status.st_size)
    content = path.read_bytes()
    kind, reason, dicom = _identify(content, path.suffix.lower())
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


def _identify(content: bytes, suffix: str) -> tuple[FileKind, str, DicomFile | None]:
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        if looks_like_bare_data_set(content):
            return FileKind.UNREADABLE, _NO_PREAMBLE, None
        if suffix in DICOM_SUFFIXES and not content.startswith(_APPLE_DOUBLE):
            return (
                FileKind.UNREADABLE,
                f"named {suffix} but not DICOM: send the file again from its source",
                None,
            )
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
    """Parse with two parsers, which must agree."""
    layout = parse(content)
    stream = BytesIO(content)
    try:
        header = pydicom.dcmread(stream, stop_before_pixels=True)
    except (InvalidDicomError, ValueError, KeyError, EOFError, NotImplementedError) as error:
        raise UnreadableInstance(
            f"not readable as DICOM ({error}); send the file again from its source"
        ) from error
    pixels = layout.pixel_data
    if pixels is not None and not layout.deflated and stream.tell() != pixels.start:
        raise UnreadableInstance(
            f"two parsers place the pixel data at the bytes {stream.tell()} and {pixels.start}; "
            "they must agree: send the file again from its source"
        )
    return DicomFile(content=content, layout=layout, header=header)
