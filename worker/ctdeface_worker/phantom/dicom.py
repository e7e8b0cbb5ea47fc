"""Writing a synthetic head as DICOM CT instances.

Variations of real archives (planes, transfer syntaxes, padding, wrong headers) are available.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Volume
from ctdeface_worker.phantom.head import Phantom

StoredArray: TypeAlias = NDArray[np.uint16]

INTERCEPT_HU = -1024.0
BITS_STORED = 12
NATIVE = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    }
)


class Plane(StrEnum):
    """Plane of the stored slices; the head stays in place."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


class Mistake(StrEnum):
    """Error of the orientation in the headers."""

    NONE = "none"
    UPSIDE_DOWN = "upside down"
    BACK_TO_FRONT = "back to front"
    SWAPPED = "swapped"
    """Row and column directions exchanged, which mirrors the head about a diagonal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """Options for writing a case.

    Attributes:
        patient_id: (0010,0020); another patient has other UIDs throughout.
        name: (0010,0010).
        plane: plane of the stored slices.
        transfer_syntax: native, or one that pydicom can encode.
        padding_circle: fill everything outside the round field of view with PixelPaddingValue.
        mistake: error of ImageOrientationPatient and positions.
    """

    patient_id: str = "PHANTOM-1"
    name: str = "Phantom^Head"
    plane: Plane = Plane.AXIAL
    transfer_syntax: str = ExplicitVRLittleEndian
    padding_circle: bool = False
    mistake: Mistake = Mistake.NONE


PLAIN = Variation()

STORED_ORDER = {Plane.AXIAL: (0, 1, 2), Plane.CORONAL: (1, 0, 2), Plane.SAGITTAL: (2, 0, 1)}
_TURN = {Mistake.UPSIDE_DOWN: (-1.0, 1.0, -1.0), Mistake.BACK_TO_FRONT: (-1.0, -1.0, 1.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """One image with its position and directions in LPS mm."""

    number: int
    stored: StoredArray
    position: FloatArray
    row_direction: FloatArray
    column_direction: FloatArray
    spacing_mm: tuple[float, float, float]


def write_case(phantom: Phantom, folder: Path, variation: Variation = PLAIN) -> tuple[Path, ...]:
    """Write one file per slice, with reproducible bytes.

    Args:
        phantom: the head.
        folder: created if missing.
        variation: options for writing.

    Returns:
        The files, in the order of their InstanceNumber.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for image in _slices(phantom.volume, variation):
        file = folder / f"IM{image.number:04d}.dcm"
        dataset = _dataset(phantom.seed, image, variation)
        _write(dataset, image.stored, UID(variation.transfer_syntax), file)
        files.append(file)
    return tuple(files)


def reordered(array: BoolArray, plane: Plane) -> BoolArray:
    """Return a label in the voxel order that `write_case` stores.

    Slices are sorted by InstanceNumber.
    """
    out = array.transpose(STORED_ORDER[plane])
    return out if plane is Plane.AXIAL else out[:, ::-1]


def uid(*names: object) -> UID:
    """Return a UID derived from names (DICOM PS3.5 B.2)."""
    name = "/".join(map(str, ("ctdeface phantom", *names)))
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")


def _stored(volume: Volume, *, padding_circle: bool) -> StoredArray:
    stored: StoredArray = np.rint(volume.hu - INTERCEPT_HU).astype(np.uint16)
    if padding_circle:
        rows, columns = (np.linspace(-1, 1, n) for n in volume.hu.shape[1:])
        stored[:, rows[:, None] ** 2 + columns[None, :] ** 2 > 1.01] = 0
    return stored


def _slices(volume: Volume, variation: Variation) -> Iterator[_Slice]:
    """Yield the slices, reformats with the top row first."""
    order = STORED_ORDER[variation.plane]
    stored = _stored(volume, padding_circle=variation.padding_circle).transpose(order)
    affine = volume.geometry.affine_lps
    steps, start = affine[:3, :3][:, order], affine[:3, 3]
    if variation.plane is not Plane.AXIAL:
        stored = stored[:, ::-1]
        start = start + steps[:, 1] * (stored.shape[1] - 1)
        steps = steps * np.array([1.0, -1.0, 1.0])
    turn = np.array(_TURN.get(variation.mistake, (1.0, 1.0, 1.0)))
    steps, start = steps * turn[:, None], start * turn
    spacing = np.linalg.norm(steps, axis=0)
    row, column = steps[:, 2] / spacing[2], steps[:, 1] / spacing[1]
    if variation.mistake is Mistake.SWAPPED:
        row, column = column, row
    for k, image in enumerate(stored):
        yield _Slice(
            number=k + 1,
            stored=np.ascontiguousarray(image),
            position=start + k * steps[:, 0],
            row_direction=row,
            column_direction=column,
            spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        )


def _dataset(seed: int, image: _Slice, variation: Variation) -> Dataset:
    dataset = Dataset()
    _describe(dataset, seed, variation)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = uid(seed, variation.patient_id, "instance", image.number)
    dataset.InstanceNumber = image.number
    dataset.ImagePositionPatient = [round(float(value), 4) for value in image.position]
    dataset.ImageOrientationPatient = [
        round(float(value), 6) + 0.0 for value in (*image.row_direction, *image.column_direction)
    ]
    dataset.SliceThickness, dataset.SpacingBetweenSlices = image.spacing_mm[0], image.spacing_mm[0]
    dataset.PixelSpacing = list(image.spacing_mm[1:])
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = image.stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS_STORED, BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = INTERCEPT_HU, 1.0, "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 80
    if variation.padding_circle:
        dataset.add_new(0x00280120, "US", 0)
    return dataset


def _describe(dataset: Dataset, seed: int, variation: Variation) -> None:
    """Fill in a fictitious patient, study, series and scanner."""
    patient = variation.patient_id
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20000101"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = "ctdeface"
    dataset.ManufacturerModelName = "synthetic head"
    dataset.StudyDescription = dataset.SeriesDescription = "Synthetic head"
    dataset.PatientName, dataset.PatientID = variation.name, patient
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.BodyPartExamined, dataset.PatientPosition = "HEAD", "HFS"
    dataset.KVP = "120"
    dataset.StudyInstanceUID = uid(seed, patient, "study")
    dataset.SeriesInstanceUID = uid(seed, patient, "series")
    dataset.FrameOfReferenceUID = uid(seed, patient, "frame")
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID, dataset.SeriesNumber, dataset.AcquisitionNumber = "1", 2, 1
    block = dataset.private_block(0x0029, "CTDEFACE PHANTOM", create=True)
    block.add_new(0x01, "LO", "synthetic")
    block.add_new(0x02, "DS", "1.5")
    block.add_new(0x03, "OB", bytes(range(64)))


def _write(dataset: Dataset, stored: StoredArray, syntax: UID, file: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    native = syntax in NATIVE
    dataset.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    big = syntax == ExplicitVRBigEndian
    dataset.add_new(0x7FE00010, "OW", stored.astype(">u2" if big else "<u2").tobytes())
    if not native:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(
        file,
        enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=not big,
    )
