"""Writes a synthetic head as the CT instances a scanner would send, with variations real archives hold."""

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
    """In which order the voxels are stored; the head lies the same in all."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


class Mistake(StrEnum):
    """What is wrong with the orientation in the headers."""

    NONE = "none"
    UPSIDE_DOWN = "upside down"
    BACK_TO_FRONT = "back to front"
    SWAPPED = "swapped"
    """Row and column direction exchanged, which mirrors the head about a diagonal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How a case is written.

    Attributes:
        patient_id: (0010,0020); another patient has other UIDs throughout.
        name: (0010,0010).
        plane: order of the voxels.
        transfer_syntax: native, or one that pydicom can encode.
        padding_circle: fill everything outside the round field of view with PixelPaddingValue.
        mistake: wrong ImageOrientationPatient and positions.
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
    """One image and where it lies, LPS mm."""

    number: int
    stored: StoredArray
    position: FloatArray
    row_direction: FloatArray
    column_direction: FloatArray
    spacing_mm: tuple[float, float, float]


def write_case(phantom: Phantom, folder: Path, variation: Variation = PLAIN) -> tuple[Path, ...]:
    """Write one file per slice; the same phantom and variation always give the same bytes.

    Args:
        phantom: the head.
        folder: made unless it is there.
        variation: how to write it.

    Returns:
        The files, in the order of their InstanceNumber.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for image in _slices(phantom.volume, variation):
        file = folder / f"IM{image.number:04d}.dcm"
        _write(
            _dataset(phantom.seed, image, variation),
            image.stored,
            UID(variation.transfer_syntax),
            file,
        )
        files.append(file)
    return tuple(files)


def reordered(array: BoolArray, plane: Plane) -> BoolArray:
    """Return a label of the phantom in the order in which `write_case` stores that plane, slices by InstanceNumber."""
    out = array.transpose(STORED_ORDER[plane])
    return out if plane is Plane.AXIAL else out[:, ::-1]


def uid(*names: object) -> UID:
    """Make a UID from names, always the same one (DICOM PS3.5 B.2)."""
    return UID(
        f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, ('ctdeface phantom', *names)))).int}"
    )


def _stored(volume: Volume, *, padding_circle: bool) -> StoredArray:
    stored: StoredArray = np.rint(volume.hu - INTERCEPT_HU).astype(np.uint16)
    if padding_circle:
        rows, columns = (np.linspace(-1, 1, n) for n in volume.hu.shape[1:])
        stored[:, rows[:, None] ** 2 + columns[None, :] ** 2 > 1.01] = 0
    return stored


def _slices(volume: Volume, variation: Variation) -> Iterator[_Slice]:
    """Reformats are stored from the top downward, as viewers show them."""
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
    made = Dataset()
    _describe(made, seed, variation)
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = uid(seed, variation.patient_id, "instance", image.number)
    made.InstanceNumber = image.number
    made.ImagePositionPatient = [round(float(value), 4) for value in image.position]
    made.ImageOrientationPatient = [
        round(float(value), 6) + 0.0 for value in (*image.row_direction, *image.column_direction)
    ]
    made.SliceThickness, made.SpacingBetweenSlices = image.spacing_mm[0], image.spacing_mm[0]
    made.PixelSpacing = list(image.spacing_mm[1:])
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = image.stored.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, BITS_STORED, BITS_STORED - 1
    made.PixelRepresentation = 0
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = INTERCEPT_HU, 1.0, "HU"
    made.WindowCenter, made.WindowWidth = 40, 80
    if variation.padding_circle:
        made.add_new(0x00280120, "US", 0)
    return made


def _describe(made: Dataset, seed: int, variation: Variation) -> None:
    """Fill in a patient, a study, a series and a scanner that do not exist."""
    patient = variation.patient_id
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = "20000101"
    made.StudyTime = made.SeriesTime = made.AcquisitionTime = "120000"
    made.AccessionNumber = ""
    made.Modality = "CT"
    made.Manufacturer = "ctdeface"
    made.ManufacturerModelName = "synthetic head"
    made.StudyDescription = made.SeriesDescription = "Synthetic head"
    made.PatientName, made.PatientID = variation.name, patient
    made.PatientBirthDate, made.PatientSex = "", "O"
    made.BodyPartExamined, made.PatientPosition = "HEAD", "HFS"
    made.KVP = "120"
    made.StudyInstanceUID = uid(seed, patient, "study")
    made.SeriesInstanceUID = uid(seed, patient, "series")
    made.FrameOfReferenceUID = uid(seed, patient, "frame")
    made.PositionReferenceIndicator = ""
    made.StudyID, made.SeriesNumber, made.AcquisitionNumber = "1", 2, 1
    block = made.private_block(0x0029, "CTDEFACE PHANTOM", create=True)
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
