"""Allow-list of instances that can be released slices.

Only CT Image Storage instances (DICOM PS3.3 A.3) with rescale, position and plain 16-bit pixels
pass. Values that could hold another picture of the face make an instance withheld.
"""

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
from ctdeface_worker.dicom.elements import tag_name
from ctdeface_worker.dicom.opaque import OpaqueValue, values_that_count
from ctdeface_worker.dicom.reader import CaseFile, DicomFile
from ctdeface_worker.imaging.domain import Instance, PixelFormat, Placement

_SAFE_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._ -]{0,127}")
"""SeriesInstanceUIDs that can safely name preview and NIfTI files.

DICOM PS3.5 section 9.1 allows up to 64 digits and dots; some systems write more.
"""
_FLOAT_PIXELS = frozenset({0x7FE00008, 0x7FE00009})
_GRAY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_HU_RESCALE_TYPES = frozenset({"HU", "HU_MOD", "US"})
"""RescaleType (0028,1054) of values in HU; "US" (unspecified) is common in older CT."""
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
    """Reason to withhold a file or series that did not fail."""

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
    """Decisions of the data stewards about opaque elements.

    Elements are named by tag, such as "(0029,1010)"; nested ones are included.

    Attributes:
        keep: left unchanged.
        blank: zeroed in place.
    """

    keep: frozenset[str] = frozenset()
    blank: frozenset[str] = frozenset()


NO_POLICY = ElementPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Reason why an instance is withheld.

    Attributes:
        code: stable name.
        reason: continues the sentence "this instance …".
        whole_series: True if the instance may be a slice, without which its series must not be
            released.
    """

    code: WithheldCode
    reason: str
    whole_series: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleSlice:
    """An instance that may belong to a volume.

    Attributes:
        instance: the possible slice.
        values: those that count towards the budgets of instance and series.
    """

    instance: Instance
    values: tuple[OpaqueValue, ...]


def as_instance(file: CaseFile, dicom: DicomFile, policy: ElementPolicy) -> PossibleSlice | Refusal:
    """Return a possible slice or a reason to withhold.

    Raises:
        UnreadableInstance: a required header value is damaged.
    """
    try:
        return _as_instance(file, dicom, policy)
    except (ValueError, TypeError, NotImplementedError) as error:
        # pydicom raises these for values that it cannot convert.
        raise UnreadableInstance(
            f"a header value cannot be read ({error}); send the file again from its source"
        ) from error


def _as_instance(
    file: CaseFile, dicom: DicomFile, policy: ElementPolicy
) -> PossibleSlice | Refusal:
    header = dicom.header
    refusal = (
        _object_refusal(header)
        or _image_type_refusal(header)
        or _pixel_refusal(header)
        or _picture_refusal(dicom)
    )
    if refusal:
        return refusal
    placement = _placement(header)
    if placement is None:
        return Refusal(
            code=WithheldCode.NOT_A_VOLUME,
            reason="has no valid ImagePositionPatient, ImageOrientationPatient or PixelSpacing; a "
            "volume needs all three",
        )
    pixels = _pixel_format(header)
    if pixels is None:
        return Refusal(
            code=WithheldCode.DERIVED_IMAGE,
            reason="has no RescaleSlope and RescaleIntercept, which Hounsfield units need",
        )
    instance = Instance(
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
    values = values_that_count(dicom.layout, policy.keep | policy.blank)
    return PossibleSlice(instance=instance, values=values)


def _object_refusal(header: pydicom.Dataset) -> Refusal | None:
    """Refuse everything but single-frame CT images with UIDs."""
    sop_class = header.get("SOPClassUID", "")
    if (
        sop_class in {EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
        or (_whole(header, "NumberOfFrames") or 1) > 1
    ):
        reason = "is a multi-frame image; only single-frame CT images are supported"
    elif sop_class != CTImageStorage:
        name = getattr(sop_class, "name", "") or "an object without SOP class"
        reason = f"is {name}; only CT Image Storage is supported"
    elif not header.get("SOPInstanceUID") or not header.get("SeriesInstanceUID"):
        reason = "has no SOPInstanceUID or SeriesInstanceUID; both are required"
    elif not _SAFE_UID.fullmatch(str(header.SeriesInstanceUID)):
        reason = "has a SeriesInstanceUID that is not a UID"
    else:
        return None
    return Refusal(code=WithheldCode.UNSUPPORTED_OBJECT, reason=reason)


def _image_type_refusal(header: pydicom.Dataset) -> Refusal | None:
    given = header.get("ImageType") or ()
    values = [given] if isinstance(given, str) else list(given)
    for value in values:
        words = [str(value).upper(), *str(value).upper().split()]
        kind = next((_NOT_VOLUMES[word] for word in words if word in _NOT_VOLUMES), "")
        if kind:
            code = WithheldCode.LOCALIZER if "localizer" in kind else WithheldCode.DERIVED_IMAGE
            return Refusal(code=code, reason=f"is {kind} by its ImageType, not a slice of a volume")
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        reason = "has text burned into its pixels (BurnedInAnnotation) that may name the patient"
        return Refusal(code=WithheldCode.BURNED_IN_ANNOTATION, reason=reason, whole_series=True)
    return None


def _pixel_refusal(header: pydicom.Dataset) -> Refusal | None:
    """Refuse pixels other than 16-bit gray values in HU."""
    photometric = str(header.get("PhotometricInterpretation", ""))
    gray = photometric in _GRAY and header.get("SamplesPerPixel", 1) == 1
    rescale_type = str(header.get("RescaleType", "HU") or "HU").upper()
    if not gray or rescale_type not in _HU_RESCALE_TYPES:
        return Refusal(
            code=WithheldCode.DERIVED_IMAGE,
            reason="has color pixels, or a RescaleType other than Hounsfield units; gray values in "
            "Hounsfield units are required",
        )
    stored = _whole(header, "BitsStored")
    if (
        header.get("BitsAllocated") != 16
        or not stored
        or not 1 < stored <= 16
        or header.get("HighBit", stored - 1) != stored - 1
    ):
        reason = (
            f"has {header.get('BitsAllocated')} bits allocated, {stored} stored and the high bit "
            f"{header.get('HighBit')}; the low bits of 16-bit words are required"
        )
        return Refusal(code=WithheldCode.UNSUPPORTED_OBJECT, reason=reason, whole_series=True)
    return None


def _picture_refusal(dicom: DicomFile) -> Refusal | None:
    """Refuse instances without pixels, or with a second picture."""
    if dicom.layout.pixel_data is None:
        return Refusal(
            code=WithheldCode.NOT_A_VOLUME, reason="holds no pixel data, which a volume needs"
        )
    floats = next((tag for tag in _FLOAT_PIXELS if dicom.layout.top(tag)), None)
    if floats:
        reason = f"holds a second picture in {tag_name(floats)}; one is allowed"
    elif _overlay_in_pixels(dicom):
        reason = "holds an overlay in unused bits of the pixel data, which is not supported"
    else:
        return None
    return Refusal(code=WithheldCode.UNSUPPORTED_OBJECT, reason=reason, whole_series=True)


def _overlay_in_pixels(dicom: DicomFile) -> bool:
    """Return whether an overlay is stored in the pixel data.

    Such overlays are retired (DICOM PS3.5 section 8.1.2).

    Such an overlay group has no overlay data of its own, or more than one bit allocated.
    """
    layout, header = dicom.layout, dicom.header
    groups = {
        element.tag >> 16
        for element in layout.elements
        if _is_overlay_group(element.tag) and not element.path
    }
    for group in groups:
        if layout.top(group << 16 | 0x0010) is None or (group, 0x0100) not in header:
            continue
        if layout.top(group << 16 | 0x3000) is None or header[group, 0x0100].value != 1:
            return True
    return False


def _is_overlay_group(tag: int) -> bool:
    return tag >> 16 & 0xFF01 == 0x6000


def _placement(header: pydicom.Dataset) -> Placement | None:
    position = _numbers(header, "ImagePositionPatient", 3)
    orientation = _numbers(header, "ImageOrientationPatient", 6)
    spacing = _numbers(header, "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None:
        return None
    if min(spacing) <= 0 or not _is_orthonormal(orientation):
        return None
    ax, ay, az, bx, by, bz = orientation
    thickness = _numbers(header, "SliceThickness", 1)
    return Placement(
        position=(position[0], position[1], position[2]),
        orientation=(ax, ay, az, bx, by, bz),
        pixel_spacing_mm=(spacing[0], spacing[1]),
        slice_thickness_mm=thickness[0] if thickness else None,
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID", "")) or None,
    )


def _is_orthonormal(orientation: Sequence[float]) -> bool:
    row, column = orientation[:3], orientation[3:]
    dot = sum(a * b for a, b in zip(row, column, strict=True))
    return max(abs(math.hypot(*row) - 1), abs(math.hypot(*column) - 1), abs(dot)) < 1e-2


def _pixel_format(header: pydicom.Dataset) -> PixelFormat | None:
    slope = _numbers(header, "RescaleSlope", 1)
    intercept = _numbers(header, "RescaleIntercept", 1)
    if slope is None or intercept is None or slope[0] == 0:
        return None
    if not header.get("Rows") or not header.get("Columns"):
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
    """Return the padding range in stored words.

    The VR of the header element (US or SS) may contradict PixelRepresentation, which decides.
    """
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
    """Return `count` finite numbers, or None."""
    try:
        given = header.get(keyword)
        values = [float(value) for value in ([given] if count == 1 else given)]
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _whole(header: pydicom.Dataset, keyword: str) -> int | None:
    numbers = _numbers(header, keyword, 1)
    return int(numbers[0]) if numbers else None
