"""Which patient and study files belong to.

Pure rules on header values. The watcher compares drops of one name, the worker files of one case.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, Self

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
"""Suffixes of files that are expected to be DICOM, in lower case."""

_NAME_GROUPS = ("PatientName", "PatientName (ideographic)", "PatientName (phonetic)")
_REPLACED = frozenset("?\ufffd")
"""What archives write for letters that they cannot: such a name proves nothing beside an ID."""
_SEX = {"MALE": "M", "FEMALE": "F", "OTHER": "O", "U": "", "UNKNOWN": "", "UNK": ""}


class Header(Protocol):
    """Header values by keyword, such as a data set of pydicom."""

    def get(self, keyword: str, /) -> object:
        """Return a value, None when absent."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PatientIdentity:
    """Patient of one file in normalized text; empty means absent.

    Attributes:
        patient_id: (0010,0020).
        issuer: (0010,0021), of the patient ID.
        name: (0010,0010) in lower case, components separated by spaces; alphabetic, ideographic and
            phonetic group separated by "=" (DICOM PS3.5 section 6.2.1).
        birth_date: (0010,0030), digits only.
        sex: (0010,0040), in capitals.
    """

    patient_id: str = ""
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""

    @classmethod
    def of(cls, header: Header) -> Self:
        """Take the identity from header values."""
        return cls(
            patient_id=_text(header, "PatientID"),
            issuer=_text(header, "IssuerOfPatientID"),
            name=_name(_text(header, "PatientName")),
            birth_date=_birth_date(_text(header, "PatientBirthDate")),
            sex=_sex(_text(header, "PatientSex")),
        )

    def contradicts(self, other: "PatientIdentity") -> bool:
        """Return whether two files cannot be of one patient."""
        return contradiction((("", self), ("", other))) is not None

    def attributes(self) -> Iterator[tuple[str, str]]:
        """Yield keyword and value of the attributes to compare.

        Absent ones are left out, except for the patient ID, and the name where an ID is missing: a
        file without either must not join any patient.
        """
        yield "PatientID", self.patient_id
        groups = self.name.split("=")
        if not self.patient_id and not groups[0]:
            yield "PatientName", ""
        for key, text in zip(_NAME_GROUPS, groups, strict=False):
            if text and not (self.patient_id and _REPLACED & set(text)):
                yield key, text
        others = {
            "IssuerOfPatientID": self.issuer,
            "PatientBirthDate": self.birth_date,
            "PatientSex": self.sex,
        }
        yield from ((key, value) for key, value in others.items() if value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two files of different patients.

    Attributes:
        attributes: keywords of all attributes that differ among the files, never their values.
        files: the first two files that differ in the first of them.
    """

    attributes: tuple[str, ...]
    files: tuple[str, str]


def contradiction(patients: Iterable[tuple[str, PatientIdentity]]) -> Contradiction | None:
    """Compare the patients of many files, each attribute as far as present.

    Args:
        patients: name and patient of each file.

    Returns:
        Attributes and files that differ; None if all can be of one patient.
    """
    first: dict[str, tuple[str, str]] = {}
    differing: dict[str, tuple[str, str]] = {}
    for file, patient in patients:
        for attribute, value in patient.attributes():
            known, earlier = first.setdefault(attribute, (value, file))
            if known != value:
                differing.setdefault(attribute, (earlier, file))
    if not differing:
        return None
    return Contradiction(attributes=tuple(differing), files=next(iter(differing.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class DropIdentity:
    """Patients and studies of the files of a drop or case.

    Attributes:
        patients: each once.
        studies: StudyInstanceUIDs.
        unreadable: number of files that are or may be DICOM but do not tell.
    """

    patients: frozenset[PatientIdentity] = field(default=frozenset(), repr=False)
    studies: frozenset[str] = field(default=frozenset(), repr=False)
    unreadable: int = 0

    def belongs_to(self, earlier: "DropIdentity") -> bool:
        """Return whether all files are of the studies and patient of an earlier drop.

        Files of the earlier drop that could not be read do not count.
        """
        known = not self.unreadable and bool(self.studies) and self.studies <= earlier.studies
        everyone = chain(self.patients, earlier.patients)
        return known and contradiction(("", patient) for patient in everyone) is None


def _text(header: Header, keyword: str) -> str:
    value = header.get(keyword)
    text = "" if value is None else str(value)
    # UTF-8 that was read as Latin-1, because the file does not name its character set.
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return unicodedata.normalize("NFC", text).replace("\0", " ").strip()


def _name(text: str) -> str:
    """Fold a name; archives differ in case, trailing carets and separators."""
    words = (group.replace("^", " ").replace(",", " ").split() for group in text.split("="))
    return "=".join(" ".join(group) for group in words).casefold().rstrip("=")


def _birth_date(text: str) -> str:
    """Keep the digits; old files write 1970.01.31, and zeros stand for an unknown date."""
    digits = "".join(character for character in text if character in "0123456789")
    return digits if digits.strip("0") else ""


def _sex(text: str) -> str:
    return _SEX.get(text.upper(), text.upper())
