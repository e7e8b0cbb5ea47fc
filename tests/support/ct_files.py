"""CT files made with pydicom for the tests, without code of ctdeface."""

from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ROOT = "1.2.826.0.1.3680043.8.498."


@dataclass(frozen=True, slots=True, kw_only=True)
class CtFile:
    """One CT file; `elements` are added or replaced last, by keyword (None deletes)."""

    number: int = 1
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: tuple[float, ...] = AXIAL
    stored: NDArray[Any] = field(
        default_factory=lambda: np.arange(48, dtype=np.uint16).reshape(6, 8)
    )
    bits_stored: int = 16
    slope: float = 1.0
    intercept: float = -1024.0
    syntax: str = ExplicitVRLittleEndian
    series: str = "1"
    elements: dict[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> pydicom.Dataset:
        """The data set."""
        made = pydicom.Dataset()
        made.SOPClassUID = CTImageStorage
        made.SOPInstanceUID = f"{ROOT}1.{self.series}.{self.number}"
        made.StudyInstanceUID = f"{ROOT}2"
        made.SeriesInstanceUID = f"{ROOT}3.{self.series}"
        made.FrameOfReferenceUID = f"{ROOT}4"
        made.PatientID = "phantom"
        made.PatientName = "Phantom"
        made.Modality = "CT"
        made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        made.InstanceNumber = self.number
        made.ImagePositionPatient = [round(value, 6) for value in self.position]
        made.ImageOrientationPatient = [round(value, 9) for value in self.orientation]
        made.PixelSpacing = [1.0, 1.0]
        made.SliceThickness = 2.0
        made.SamplesPerPixel = 1
        made.PhotometricInterpretation = "MONOCHROME2"
        made.Rows, made.Columns = self.stored.shape
        made.BitsAllocated = 16
        made.BitsStored = self.bits_stored
        made.HighBit = self.bits_stored - 1
        made.PixelRepresentation = int(self.stored.dtype.kind == "i")
        made.RescaleSlope = self.slope
        made.RescaleIntercept = self.intercept
        for keyword, value in self.elements.items():
            if value is None:
                delattr(made, keyword)
            else:
                setattr(made, keyword, value)
        return made

    @property
    def content(self) -> bytes:
        """The file's bytes in its (native or deflated) syntax."""
        return encoded(self.dataset, self.stored, self.syntax)


def encoded(
    dataset: pydicom.Dataset, stored: NDArray[Any], syntax: str, frame: bytes | None = None
) -> bytes:
    """Write a data set as a file; a compressed frame replaces the native pixel data."""
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    order: Literal["<", ">"] = ">" if syntax == ExplicitVRBigEndian else "<"
    value = (
        stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        if frame is None
        else encapsulate([frame])
    )
    dataset.add_new(0x7FE00010, "OW" if frame is None else "OB", value)
    if frame is not None:
        dataset[0x7FE00010].is_undefined_length = True
    stream = BytesIO()
    dataset.save_as(
        stream,
        enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=order == "<",
    )
    return stream.getvalue()


def stack(count: int = 5, *, spacing: float = 2.0, **changes: Any) -> list[CtFile]:
    """Return axial slices from the feet upward, numbered from 1."""
    return [
        replace(CtFile(number=k + 1, position=(0.0, 0.0, k * spacing)), **changes)
        for k in range(count)
    ]


def put(folder: Path, files: list[CtFile]) -> Path:
    """Write files named by number and series into a folder."""
    for file in files:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{file.series}-{file.number:04d}.dcm").write_bytes(file.content)
    return folder
