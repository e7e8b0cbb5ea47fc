"""Read which patient and study a drop belongs to.

The only place where the watcher parses DICOM, and only for a drop under the name of an earlier
case. It reads the head of each file; a file that it cannot read is not known to belong.
"""

import struct
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from threading import Lock

from ctdeface_shared.jobs.identity import DICOM_SUFFIXES, DropIdentity, PatientIdentity

HEAD_BYTES = 1 << 20
"""Bytes read from each file; the elements up to the study are usually among the first 4 KiB."""
_MOST_READS = 20_000
_LONGEST_TEXT = 1024
_MOST_KEPT = 1000
_STUDY = 0x0020000D
_DIRECTORY_GROUP = 0x0004
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_BARE_DATA_SETS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_DEFLATED = b"1.2.840.10008.1.2.1.99"

_PARSING = Lock()
"""Held while pydicom parses: `warnings.catch_warnings` must not overlap between threads."""


class _UnreadableHeadError(Exception):
    """The head of a file does not tell its patient and study."""


class _Head(BytesIO):
    """Bytes that can be read a limited number of times.

    pydicom makes an object of each item; a million empty ones would fill the memory.
    """

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise _UnreadableHeadError
        return super().read(size)


class _UpToStudy:
    """Stops pydicom behind the study, and notes whether it came there in order."""

    def __init__(self) -> None:
        self.last = 0
        self.in_order = True
        self.arrived = False

    def __call__(self, tag: int, _vr: str | None, _length: int) -> bool:
        self.in_order = self.in_order and tag > self.last
        self.last = tag
        self.arrived = tag > _STUDY
        return self.arrived or not self.in_order or tag >> 16 == _DIRECTORY_GROUP


def read_identity(folder: Path, names: Iterable[str]) -> DropIdentity:
    """Read patients and studies from the heads of files.

    Files that are not DICOM, and DICOMDIRs, are passed over. Damaged files, deflated ones and files
    whose patient or study is not within the first `HEAD_BYTES` count as unreadable.

    Args:
        folder: private folder of the drop, which no other user can change.
        names: posix paths relative to the folder.

    Returns:
        The identity. Behind 1 000 different patients, studies or unreadable files it stops, and
        what follows counts as one unreadable file.

    Raises:
        OSError: a file cannot be read.
    """
    patients: set[PatientIdentity] = set()
    studies: set[str] = set()
    unreadable = 0
    for name in names:
        if max(len(patients), len(studies), unreadable) >= _MOST_KEPT:
            unreadable += 1
            break
        with (folder / name).open("rb") as file:
            head = file.read(HEAD_BYTES)
        try:
            found = _parse(head, Path(name).suffix.lower())
        except _UnreadableHeadError:
            unreadable += 1
            continue
        if found:
            patients.add(found[0])
            studies.add(found[1])
    return DropIdentity(
        patients=frozenset(patients), studies=frozenset(studies), unreadable=unreadable
    )


def _parse(head: bytes, suffix: str) -> tuple[PatientIdentity, str] | None:
    """Return patient and study, None for a file without either.

    Raises:
        _UnreadableHeadError: it may be DICOM but does not tell.
    """
    if head[128:132] != b"DICM":
        apple_double = head.startswith(_APPLE_DOUBLE)
        if not apple_double and (suffix in DICOM_SUFFIXES or head[:2] in _BARE_DATA_SETS):
            raise _UnreadableHeadError
        return None
    if _DEFLATED in head:  # pydicom would inflate it without a limit
        raise _UnreadableHeadError
    from pydicom.errors import BytesLengthException, InvalidDicomError

    # pydicom has no common base for what damaged bytes raise.
    damaged = (
        BytesLengthException,
        InvalidDicomError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
        struct.error,
    )
    try:
        # pydicom's warnings quote header values.
        with _PARSING, warnings.catch_warnings(action="ignore"):
            return _read(head)
    except damaged as error:
        raise _UnreadableHeadError from error


def _read(head: bytes) -> tuple[PatientIdentity, str] | None:
    from pydicom.filereader import read_partial

    up_to_study = _UpToStudy()
    header = read_partial(_Head(head), stop_when=up_to_study)
    if header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY_CLASS:
        return None
    patient = PatientIdentity.of(header)
    study = str(header.get("StudyInstanceUID") or "")
    texts = (study, patient.patient_id, patient.issuer, patient.name, patient.birth_date)
    complete = up_to_study.arrived and up_to_study.in_order and bool(study)
    if not complete or max(map(len, (*texts, patient.sex))) > _LONGEST_TEXT:
        raise _UnreadableHeadError
    return patient, study
