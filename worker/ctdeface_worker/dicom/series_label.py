"""Number, description and kind of a series."""

from collections.abc import Iterable
from dataclasses import dataclass

import pydicom
from pydicom.uid import CTImageStorage

from ctdeface_worker.dicom.reader import CaseFile, FileKind

_LONGEST = 64
"""Characters of a description that are kept, as many as the VR LO allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLabel:
    """What workstations show about a series.

    Attributes:
        number: SeriesNumber (0020,0011), None when absent.
        description: SeriesDescription (0008,103E) without control characters, empty when absent.
        kind: for CT images the third value of ImageType (0008,0008), such as "CT AXIAL"; for other
            objects the name of the SOP class.
    """

    number: int | None = None
    description: str = ""
    kind: str = ""


NO_LABEL = SeriesLabel()


def labels_of(files: Iterable[CaseFile]) -> dict[str, SeriesLabel]:
    """Return the label of each series by its SeriesInstanceUID.

    The first file of a series, in the order given, decides.
    """
    labels: dict[str, SeriesLabel] = {}
    for file in files:
        if file.kind is FileKind.DICOM and file.dicom is not None:
            uid = _text(file.dicom.header, "SeriesInstanceUID")
            if uid not in labels:
                labels[uid] = _label(file.dicom.header)
    return labels


def _label(header: pydicom.Dataset) -> SeriesLabel:
    number = _text(header, "SeriesNumber")
    return SeriesLabel(
        number=int(number) if number.removeprefix("-").isdecimal() else None,
        description=_text(header, "SeriesDescription"),
        kind=_kind(header),
    )


def _kind(header: pydicom.Dataset) -> str:
    sop_class = header.get("SOPClassUID")
    if sop_class == CTImageStorage:
        values = _text(header, "ImageType").split("\\")
        return f"CT {values[2]}" if len(values) > 2 else "CT"
    return str(getattr(sop_class, "name", "")).removesuffix(" Storage")


def _text(header: pydicom.Dataset, keyword: str) -> str:
    """Return a value as printable text.

    Several values are separated by backslashes.
    """
    try:
        value = header.get(keyword)
    except (ValueError, TypeError, NotImplementedError):  # pydicom, on a damaged value
        return ""
    if value is None:
        return ""
    values = [value] if isinstance(value, str | int) else value
    try:
        text = "\\".join(str(one) for one in values)
    except TypeError:
        text = str(value)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]
