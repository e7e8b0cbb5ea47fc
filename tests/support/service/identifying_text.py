"""Cases with identifying text everywhere, and the search for it in what a service writes.

A mark is a string that occurs nowhere else, such as an invented surname.
"""

import base64
import json
import shutil
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from tests.support.cases import (
    add_localizer,
    add_second_patient,
    middle_slice,
    remove_a_slice,
    truncate,
    write_small_case,
)

HEADERS: Mapping[str, str] = {
    "name": "QZSURNAMEQZ",
    "foreign name": "Qzmüllerqz",
    "patient id": "QZPATIENTQZ4711",
    "birth date": "18530917",
    "institution": "QZHOSPITALQZ",
    "free text": "QZTEXTQZ",
    "broken": "QZBROKENQZ",
}
"""Header values; only DICOM files and their defaced copies may contain them."""
FOLDER, FILE, UIDS = "QZFOLDERQZ", "QZFILEQZ", "918273645546372819"
NAMES: Mapping[str, str] = {"folder": FOLDER, "file": FILE}
"""Names of a case in the inbox."""
SERIES = {"series description": "QZSERIESQZ"}
"""The name of a series, which reports show."""
EVERYTHING: Mapping[str, str] = {**HEADERS, **NAMES, **SERIES, "uid": UIDS}
ROOT = f"1.2.826.0.1.{UIDS}"
BROKEN = HEADERS["broken"].encode()


def forms(mark: str) -> frozenset[bytes]:
    """Return the spellings of a mark, in lower case.

    Three encodings, and escapes of JSON, Python and URLs.
    """
    plain = {mark.encode(), mark.encode("utf-16-le"), mark.encode("latin-1", "replace")}
    quoted = {
        json.dumps(mark)[1:-1],
        str(mark.encode("unicode_escape"), "ascii"),
        urllib.parse.quote(mark),
        repr(mark.encode())[2:-1],
    }
    return frozenset(form.lower() for form in plain | {form.encode() for form in quoted})


def packed(mark: str) -> Iterator[bytes]:
    """Yield the part of a mark's base64 that its neighbors do not change, per offset."""
    for before in range(3):
        content = bytes(before) + mark.encode()
        yield base64.b64encode(content)[4 if before else 0 : -4 if len(content) % 3 else None]


def found_in(content: bytes, marks: Mapping[str, str] = EVERYTHING) -> Sequence[str]:
    """Return the names of the marks in some content, in upper or lower case."""
    small = content.lower()
    return [
        name
        for name, mark in marks.items()
        if any(form in small for form in forms(mark))
        or any(form in content for form in packed(mark))
    ]


def contents(places: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield each path with its own name, and each file with its content."""
    for place in places:
        for path in (place, *place.rglob("*")) if place.is_dir() else (place,):
            yield (
                str(path),
                path.relative_to(place.parent).as_posix().encode("utf-8", "surrogateescape"),
            )
            if path.is_file():
                yield str(path), path.read_bytes()


def mark_headers(case: Path) -> None:
    """Put marks into patient, institution, free text and all UIDs of a case."""
    for file in case.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.PatientName = f"{HEADERS['name']}^{HEADERS['foreign name']}"
        dataset.PatientID, dataset.PatientBirthDate = HEADERS["patient id"], HEADERS["birth date"]
        dataset.InstitutionName = dataset.ReferringPhysicianName = HEADERS["institution"]
        dataset.SeriesDescription = SERIES["series description"]
        dataset.AccessionNumber = dataset.StudyDescription = HEADERS["free text"]
        dataset.private_block(0x0029, "CTDEFACE PHANTOM").add_new(0x05, "LO", HEADERS["free text"])
        for key in (
            "SOPInstanceUID",
            "SeriesInstanceUID",
            "StudyInstanceUID",
            "FrameOfReferenceUID",
        ):
            dataset[
                key
            ].value = f"{ROOT}.{int(str(dataset[key].value).rpartition('.')[2]) % 10**18}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(file)


def _break_headers(case: Path) -> None:
    """Put in invalid values, which a library might quote in a warning."""
    for file in case.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        for number, kind in ((0x00101030, "DS"), (0x00200013, "IS"), (0x00080020, "DA")):
            dataset[number] = RawDataElement(
                Tag(number),
                kind,
                len(BROKEN),
                BROKEN,
                0,
                is_implicit_VR=False,
                is_little_endian=True,
            )
        dataset.save_as(file)


def _only(case: Path, keep: Path) -> None:
    for file in case.glob("*.dcm"):
        if file != keep:
            file.unlink()


def _repeat(case: Path) -> None:
    """Add another image at the position of one."""
    dataset = pydicom.dcmread(middle_slice(case))
    dataset.SOPInstanceUID += ".1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = np.roll(dataset.pixel_array, 3, axis=0).tobytes()
    dataset.save_as(case / "IM9999.dcm")


def _only_a_scout(case: Path) -> None:
    _only(case, add_localizer(case))


def _only_text(case: Path) -> None:
    _only(case, case)
    (case / f"{FILE}.txt").write_text(" ".join(EVERYTHING.values()), encoding="utf-8")


CASES: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    f"{FOLDER} {kind}": rule
    for kind, rule in {
        "good": ("", _break_headers),
        "hole": ("MissingSlices", remove_a_slice),
        "cut": ("UnreadableInstance", lambda case: truncate(middle_slice(case))),
        "mixed": ("MixedPatients", add_second_patient),
        "scout": ("NothingToRelease", _only_a_scout),
        "twice": ("NothingToRelease", _repeat),
        "text": ("NotDicom", _only_text),
    }.items()
}
"""Folder name -> the expected code (empty for a release) and the change of the case."""


def write_marked_cases(folder: Path) -> None:
    """Write all cases into a folder."""
    template = folder / ".template"
    write_small_case(template)
    mark_headers(template)
    for name, (_, change) in CASES.items():
        case = folder / name
        shutil.copytree(template, case)
        change(case)
        for number, file in enumerate(sorted(case.glob("*.dcm"))):
            file.rename(case / f"{FILE} {number:04d}.dcm")
    shutil.rmtree(template)
