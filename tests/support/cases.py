"""Folders of synthetic cases for the tests, and what real archives add to them."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import SecondaryCaptureImageStorage

from ctdeface_worker.phantom.dicom import PLAIN, Variation, uid, write_case
from ctdeface_worker.phantom.head import SMALL_MM, Phantom, make_head


@cache
def small_head(seed: int = 1) -> Phantom:
    """Return a coarse head, made once per process."""
    return make_head(seed, spacing_mm=SMALL_MM)


def write_small_case(folder: Path, variation: Variation = PLAIN) -> tuple[Path, ...]:
    """Write the coarse head as one case; returns its files by InstanceNumber."""
    return write_case(small_head(), folder, variation)


def write_small_cases(folder: Path, count: int) -> None:
    """Write that many cases, each of a patient of its own."""
    for number in range(1, count + 1):
        write_small_case(
            folder / f"case-{number:02d}",
            replace(PLAIN, patient_id=f"PHANTOM-{number}", name=f"Phantom^{number}"),
        )


def middle_slice(case: Path) -> Path:
    """Return the file in the middle of a case."""
    files = sorted(case.glob("IM*.dcm"))
    return files[len(files) // 2]


def _resaved(dataset: Dataset, file: Path) -> Path:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)
    return file


def add_localizer(case: Path) -> Path:
    """Add a scout: a lateral projection with the profile in plain view, in a series of its own."""
    made = pydicom.dcmread(middle_slice(case))
    made.SOPInstanceUID, made.SeriesInstanceUID = (
        uid(made.SeriesInstanceUID, "scout image"),
        uid(made.SeriesInstanceUID, "scout"),
    )
    made.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    made.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    made.SeriesNumber, made.InstanceNumber = 1, 1
    return _resaved(made, case / "SCOUT.dcm")


def add_secondary_capture(case: Path) -> Path:
    """Add a screen capture, as workstations file them beside the images."""
    made = pydicom.dcmread(middle_slice(case))
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID, made.SeriesInstanceUID = (
        uid(made.SeriesInstanceUID, "capture"),
        uid(made.SeriesInstanceUID, "captures"),
    )
    made.ImageType, made.SeriesNumber, made.ConversionType = ["DERIVED", "SECONDARY"], 99, "WSD"
    return _resaved(made, case / "CAPTURE.dcm")


def add_second_patient(case: Path) -> Path:
    """Add a slice of another patient."""
    other = pydicom.dcmread(middle_slice(case))
    other.PatientID, other.PatientName = "SOMEBODY-ELSE", "Else^Somebody"
    other.SOPInstanceUID, other.SeriesInstanceUID = uid("else", "image"), uid("else", "series")
    other.StudyInstanceUID = uid("else", "study")
    return _resaved(other, case / "OTHER.dcm")


def add_icon(file: Path) -> None:
    """Add an Icon Image Sequence with a thumbnail of the slice."""
    dataset = pydicom.dcmread(file)
    thumbnail = (np.clip(dataset.pixel_array[::2, ::2] / 8, 0, 255)).astype(np.uint8)
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    icon.Rows, icon.Columns = thumbnail.shape
    icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
    icon.add_new(0x7FE00010, "OB", thumbnail.tobytes())
    dataset.IconImageSequence = Sequence([icon])
    _resaved(dataset, file)


def add_overlay(file: Path) -> None:
    """Add overlay plane 6000 with the head's outline filled."""
    dataset = pydicom.dcmread(file)
    plane = np.packbits((dataset.pixel_array > 700).ravel(), bitorder="little").tobytes()
    dataset.add_new(0x60000010, "US", dataset.Rows)
    dataset.add_new(0x60000011, "US", dataset.Columns)
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60000102, "US", 0)
    dataset.add_new(0x60003000, "OW", plane + b"\0" * (len(plane) % 2))
    _resaved(dataset, file)


def add_private_copy(file: Path) -> None:
    """Hide the slice's pixels a second time in a private element."""
    dataset = pydicom.dcmread(file)
    block = dataset.private_block(0x0029, "CTDEFACE PHANTOM")
    block.add_new(0x10, "OB", dataset.PixelData)
    _resaved(dataset, file)


def remove_a_slice(case: Path) -> None:
    """Lose a slice in the middle."""
    middle_slice(case).unlink()


def add_incomplete_series(case: Path) -> None:
    """Add a copy of the series, with UIDs of its own, that lacks a slice."""
    folder = case / "incomplete"
    folder.mkdir()
    for file in sorted(case.glob("IM*.dcm")):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = uid("incomplete series")
        dataset.SOPInstanceUID = uid(f"incomplete {file.name}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        _resaved(dataset, folder / file.name)
    remove_a_slice(folder)


def truncate(file: Path) -> None:
    """Cut a file off in the middle of its pixels, as an interrupted transfer does."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def add_strangers(case: Path) -> None:
    """Add what people and their computers leave in folders."""
    (case / "notes.txt").write_text("call back on Monday\n", encoding="utf-8")
    (case / "Thumbs.db").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))
