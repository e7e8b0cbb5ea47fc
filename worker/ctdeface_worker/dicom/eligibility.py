"""Which single instances can be slices of a volume that is released: an allow-list (DESIGN section 8, rules 6 and 7)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pydicom
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.dicom.elements import Element, tag_name
from ctdeface_worker.dicom.layout import PIXEL_DATA
from ctdeface_worker.dicom.reader import CaseFile, DicomFile
from ctdeface_worker.imaging.domain import Instance, PixelFormat, Placement

LARGEST_OPAQUE_BYTES = 16 * 1024
"""A value larger than this could hold a picture of the face."""

_SAFE_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._ -]{0,127}")
"""Previews and NIfTI files are named by SeriesInstanceUID. Up to 64 digits and dots by DICOM PS3.5 section 9.1; some systems write more."""
_FLOAT_PIXELS = frozenset({0x7FE00008, 0x7FE00009})
_NOT_VOLUMES = {
    "LOCALIZER": "a localizer (scout)",
    "SCOUT": "a localizer (scout)",
    "PROJECTION": "a projection",
    "MIP": "a maximum intensity projection",
    "MINIP": "a minimum intensity projection",
    "3D": "a 3-D rendering",
    "VRT": "a 3-D rendering",
    "VR": "a 3-D rendering",
    "VOLREN": "a 3-D rendering",
    "SSD": "a 3-D rendering",
    "CPR": "a curved reformat",
    "CURVED": "a curved reformat",
    "SCREEN SAVE": "a screen capture",
}


class WithheldCode(StrEnum):
    """Why a file or series is not released although nothing failed."""

    NOT_DICOM = "NotDicom"
    DICOMDIR = "DicomDir"
    LOCALIZER = "Localizer"
    DERIVED_IMAGE = "DerivedImage"
    NOT_A_VOLUME = "NotAVolume"
    UNSUPPORTED_OBJECT = "UnsupportedObject"
    BURNED_IN_ANNOTATION = "BurnedInAnnotation"
    REPEATED_POSITIONS = "RepeatedPositions"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementPolicy:
    """What the data stewards decided about large opaque elements, by tag name such as "(0029,1010)", nested ones included.

    Attributes:
        harmless: left as they are.
        blank: zeroed in place.
    """

    harmless: frozenset[str] = frozenset()
    blank: frozenset[str] = frozenset()


NO_POLICY = ElementPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an instance is withheld.

    Attributes:
        code: stable name.
        reason: continues the sentence "this instance …".
        whole_series: the instance may be a slice of a volume, which must not be released without
            it.
    """

    code: WithheldCode
    reason: str
    whole_series: bool = False


def as_instance(file: CaseFile, dicom: DicomFile, policy: ElementPolicy) -> Instance | Refusal:
    """Turn a file into an instance that may become a slice of a volume, or say why it is withheld.

    Raises:
        UnreadableInstance: a header value that is needed is damaged.
    """
    try:
        return _as_instance(file, dicom, policy)
    except (
        ValueError,
        TypeError,
        NotImplementedError,
    ) as error:  # what pydicom raises on values it cannot convert
        raise UnreadableInstance(f"a header value cannot be read: {error}") from error


def _as_instance(file: CaseFile, dicom: DicomFile, policy: ElementPolicy) -> Instance | Refusal:
    header = dicom.header
    refusal = (
        _object_refusal(header)
        or _image_type_refusal(header)
        or _pixel_refusal(header)
        or _opaque_refusal(dicom, policy)
    )
    if refusal:
        return refusal
    placement = _placement(header)
    if placement is None:
        return Refusal(
            code=WithheldCode.NOT_A_VOLUME,
            reason="has no usable position, orientation or pixel spacing",
        )
    pixels = _pixel_format(header)
    if pixels is None:
        return Refusal(code=WithheldCode.DERIVED_IMAGE, reason="has no rescale to Hounsfield units")
    return Instance(
        file=file.name,
        sha256=file.sha256,
        content=dicom.content,
        study_instance_uid=str(header.get("StudyInstanceUID", "")),
        series_instance_uid=str(header.get("SeriesInstanceUID", "")),
        sop_instance_uid=str(header.get("SOPInstanceUID", "")),
        transfer_syntax_uid=dicom.layout.transfer_syntax_uid,
        instance_number=_whole(header, "InstanceNumber"),
        acquisition_number=_whole(header, "AcquisitionNumber"),
        placement=placement,
        pixels=pixels,
    )


def _object_refusal(header: pydicom.Dataset) -> Refusal | None:
    sop_class = header.get("SOPClassUID", "")
    if (
        sop_class in {EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
        or (_whole(header, "NumberOfFrames") or 1) > 1
    ):
        return Refusal(
            code=WithheldCode.UNSUPPORTED_OBJECT, reason="multi-frame images are not supported yet"
        )
    if sop_class != CTImageStorage:
        name = getattr(sop_class, "name", "") or "an object without SOP class"
        return Refusal(code=WithheldCode.UNSUPPORTED_OBJECT, reason=f"{name} is no CT image")
    if not header.get("SOPInstanceUID") or not header.get("SeriesInstanceUID"):
        return Refusal(
            code=WithheldCode.UNSUPPORTED_OBJECT,
            reason="has no SOPInstanceUID or SeriesInstanceUID",
        )
    if not _SAFE_UID.fullmatch(str(header.SeriesInstanceUID)):
        return Refusal(
            code=WithheldCode.UNSUPPORTED_OBJECT, reason="has a SeriesInstanceUID that is no UID"
        )
    return None


def _image_type_refusal(header: pydicom.Dataset) -> Refusal | None:
    given = header.get("ImageType") or ()
    values = [given] if isinstance(given, str) else list(given)
    for value in values:
        what = _NOT_VOLUMES.get(str(value).upper()) or next(
            (_NOT_VOLUMES[w] for w in str(value).upper().split() if w in _NOT_VOLUMES), ""
        )
        if what:
            code = WithheldCode.LOCALIZER if "localizer" in what else WithheldCode.DERIVED_IMAGE
            return Refusal(code=code, reason=f"is {what} by its ImageType, no slice of a volume")
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        reason = "says that text is burned into its pixels, which may name the patient"
        return Refusal(code=WithheldCode.BURNED_IN_ANNOTATION, reason=reason, whole_series=True)
    return None


def _pixel_refusal(header: pydicom.Dataset) -> Refusal | None:
    gray = (
        str(header.get("PhotometricInterpretation", "")) in {"MONOCHROME1", "MONOCHROME2"}
        and header.get("SamplesPerPixel", 1) == 1
    )
    if not gray or str(header.get("RescaleType", "HU") or "HU").upper() not in {
        "HU",
        "HU_MOD",
        "US",
    }:
        return Refusal(
            code=WithheldCode.DERIVED_IMAGE, reason="has pixels that are no Hounsfield units"
        )
    stored = _whole(header, "BitsStored")
    if (
        header.get("BitsAllocated") != 16
        or not stored
        or not 1 < stored <= 16
        or header.get("HighBit", stored - 1) != stored - 1
    ):
        reason = "has pixels that are not stored in the low bits of 16-bit words"
        return Refusal(code=WithheldCode.UNSUPPORTED_OBJECT, reason=reason, whole_series=True)
    return None


def _opaque_refusal(dicom: DicomFile, policy: ElementPolicy) -> Refusal | None:
    """Withhold what could hold another picture of the face."""
    if dicom.layout.pixel_data is None:
        return Refusal(code=WithheldCode.NOT_A_VOLUME, reason="holds no pixel data")
    allowed = policy.harmless | policy.blank
    for element in dicom.layout.elements:
        if (
            could_hold_a_picture(element)
            and tag_name(element.tag) not in allowed
            and not _is_zero(dicom, element)
        ):
            reason = f"holds {element.size} bytes in {element.name} that could be another picture of the face"
            return Refusal(code=WithheldCode.UNSUPPORTED_OBJECT, reason=reason, whole_series=True)
    if _overlay_in_pixels(dicom):
        reason = "holds an overlay in unused bits of the pixel data"
        return Refusal(code=WithheldCode.UNSUPPORTED_OBJECT, reason=reason, whole_series=True)
    return None


def _is_zero(dicom: DicomFile, element: Element) -> bool:
    return not dicom.layout.data[element.value : element.end].strip(b"\0")


def could_hold_a_picture(element: Element) -> bool:
    """Tell whether an element is large and opaque; sequences are looked into, pixel data and overlays are the writer's."""
    if element.tag in _FLOAT_PIXELS and not element.path:
        return True
    own = element.tag == PIXEL_DATA and not element.path
    return element.size > LARGEST_OPAQUE_BYTES and not (
        own or is_picture(element) or element.vr == "SQ"
    )


def is_picture(element: Element) -> bool:
    """Tell whether an element is an overlay, or the pixel data of a nested item such as an icon."""
    overlay = _is_overlay_group(element.tag) and element.tag & 0xFFFF == 0x3000
    return overlay or (element.tag >> 16 == 0x7FE0 and bool(element.path))


def _overlay_in_pixels(dicom: DicomFile) -> bool:
    """An overlay group without overlay data of its own, or with more than one bit allocated (retired, DICOM PS3.5 section 8.1.2)."""
    groups = {
        element.tag >> 16
        for element in dicom.layout.elements
        if _is_overlay_group(element.tag) and not element.path
    }
    return any(
        dicom.layout.top(group << 16 | 0x0010) is not None
        and (
            dicom.layout.top(group << 16 | 0x3000) is None or dicom.header[group, 0x0100].value != 1
        )
        for group in groups
        if (group, 0x0100) in dicom.header
    )


def _is_overlay_group(tag: int) -> bool:
    return tag >> 16 & 0xFF01 == 0x6000


def _placement(header: pydicom.Dataset) -> Placement | None:
    position = _numbers(header, "ImagePositionPatient", 3)
    orientation = _numbers(header, "ImageOrientationPatient", 6)
    spacing = _numbers(header, "PixelSpacing", 2)
    if (
        position is None
        or orientation is None
        or spacing is None
        or min(spacing) <= 0
        or not _orthonormal(orientation)
    ):
        return None
    thickness = _numbers(header, "SliceThickness", 1)
    return Placement(
        position=(position[0], position[1], position[2]),
        orientation=(
            orientation[0],
            orientation[1],
            orientation[2],
            orientation[3],
            orientation[4],
            orientation[5],
        ),
        pixel_spacing_mm=(spacing[0], spacing[1]),
        slice_thickness_mm=thickness[0] if thickness else None,
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID", "")) or None,
    )


def _orthonormal(orientation: Sequence[float]) -> bool:
    row, column = orientation[:3], orientation[3:]
    dot = sum(a * b for a, b in zip(row, column, strict=True))
    return (
        abs(math.hypot(*row) - 1) < 1e-2 and abs(math.hypot(*column) - 1) < 1e-2 and abs(dot) < 1e-2
    )


def _pixel_format(header: pydicom.Dataset) -> PixelFormat | None:
    slope, intercept = _numbers(header, "RescaleSlope", 1), _numbers(header, "RescaleIntercept", 1)
    if (
        slope is None
        or intercept is None
        or slope[0] == 0
        or not header.get("Rows")
        or not header.get("Columns")
    ):
        return None
    signed = header.get("PixelRepresentation", 0) == 1
    return PixelFormat(
        rows=int(header.Rows),
        columns=int(header.Columns),
        bits_stored=int(header.BitsStored),
        signed=signed,
        slope=slope[0],
        intercept=intercept[0],
        padding=_padding(header, signed=signed),
    )


def _padding(header: pydicom.Dataset, *, signed: bool) -> tuple[int, int] | None:
    """Padding value or range as the 16-bit words that stand in the pixel data, whatever signedness the header's element claims."""
    value = _whole(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = _whole(header, "PixelPaddingRangeLimit")
    ends = sorted(
        _as_word(end, signed=signed) for end in (value, value if limit is None else limit)
    )
    return ends[0], ends[1]


def _as_word(value: int, *, signed: bool) -> int:
    word = value & 0xFFFF
    return word - 0x10000 if signed and word >= 0x8000 else word


def _numbers(header: pydicom.Dataset, keyword: str, count: int) -> list[float] | None:
    """Return exactly that many finite numbers, or None."""
    try:
        given = header.get(keyword)
        values = [float(value) for value in ([given] if count == 1 else given)]
    except (TypeError, ValueError):
        return None
    return (
        values if len(values) == count and all(math.isfinite(value) for value in values) else None
    )


def _whole(header: pydicom.Dataset, keyword: str) -> int | None:
    numbers = _numbers(header, keyword, 1)
    return int(numbers[0]) if numbers else None
