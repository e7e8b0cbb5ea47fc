"""Exactly the masked voxels change, to the fill, and nothing else in the file does."""

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ctdeface_worker.defacing import fill_stored
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import LoadedSeries, load
from ctdeface_worker.dicom.writer import write_series
from ctdeface_worker.domain import FaceMask
from tests.ct_files import CtFile

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
TILTED = (1.0, 0.0, 0.0, 0.0, 0.9483237, -0.3173047)
ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "tilted": TILTED,
    "feet first": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}


@st.composite
def series(draw: st.DrawFn) -> list[CtFile]:
    """Draw the files of one volume in any encoding and order."""
    signed, bits = draw(st.booleans()), draw(st.sampled_from([12, 13, 16]))
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    slope = draw(st.sampled_from([1.0, 0.5, 2.0, 1.7]))
    padding = draw(st.sampled_from([None, low, low + 7]))
    orientation = ORIENTATIONS[draw(st.sampled_from(sorted(ORIENTATIONS)))]
    # A gantry tilt: the slices step straight up in z although their normal leans.
    step = (0.0, 0.0, 2.0) if orientation == TILTED else tuple(2 * np.cross(orientation[:3], orientation[3:]))
    random_values = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(3, 6))
    numbers = range(count, 0, -1) if draw(st.booleans()) else range(1, count + 1)
    files = []
    for k, number in enumerate(numbers):
        stored = random_values.integers(low, high, (6, 8), endpoint=True).astype(np.int16 if signed else np.uint16)
        if signed:
            stored[0, 0] = -1  # shows that unused bits repeat the sign
        elements: dict[str, Any] = {}
        if padding is not None:
            stored[1, :3] = padding
            elements["PixelPaddingValue"] = padding
        position = (step[0] * k + 3.0, step[1] * k - 5.0, step[2] * k + 1.0)
        # The lowest stored value is below -1024 HU, so padding never is tissue.
        intercept = -1100.0 - slope * (low + 7) + k
        files.append(
            CtFile(
                number=number,
                position=position,
                orientation=orientation,
                stored=stored,
                bits_stored=bits,
                slope=slope,
                intercept=intercept,
                syntax=draw(st.sampled_from(SYNTAXES)),
                elements=elements,
            )
        )
    return files


def loaded_from(files: list[CtFile], folder: Path) -> LoadedSeries:
    """Write the files under random names and load the one series they make."""
    for name, file in enumerate(random.Random(len(files)).sample(files, len(files))):  # noqa: S311  only an order
        (folder / f"{name}").write_bytes(file.content)
    selection = select(read_case(folder))
    assert not selection.others
    return load(selection.series[0])


def words(path: Path) -> NDArray[Any]:
    """Return the stored integers as pydicom reads them."""
    return np.asarray(pydicom.dcmread(path).pixel_array)


def without_pixels(path: Path) -> bytes:
    """Return the file with its pixel bytes cut out, found by pydicom's own reading of it."""
    content = path.read_bytes()
    raw = pydicom.dcmread(path).get_item(0x7FE00010)
    assert isinstance(raw, RawDataElement)
    if pydicom.dcmread(path).file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        plain = pydicom.dcmread(path)
        del plain.PixelData
        return bytes(str(plain), "utf-8")
    return content[: raw.value_tell] + content[raw.value_tell + raw.length :]


@settings(max_examples=60, deadline=None)
@given(files=series(), seed=st.integers(0, 2**32 - 1), fill_hu=st.sampled_from([-1000.0, -1024.0, -876.5]))
def test_exactly_the_masked_voxels_change_to_the_fill_and_nothing_else_in_the_file(files: list[CtFile], seed: int, fill_hu: float) -> None:
    """Whatever slope, intercept, bits, signedness, padding, byte order, file order, numbering and orientation the series has."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before"), Path(folder, "after")
        before.mkdir()
        after.mkdir()
        loaded = loaded_from(files, before)
        face = np.random.default_rng(seed).random(loaded.volume.geometry.shape) < 0.3
        written = write_series(loaded, fill_stored(loaded, FaceMask(face=face, geometry=loaded.volume.geometry), fill_hu), after)
        for instance in written:
            was, now = words(before / instance.file), words(after / instance.file)
            header = pydicom.dcmread(before / instance.file)
            masked = face[instance.slice_number] & (was != header.get("PixelPaddingValue", 1 << 20))
            assert np.array_equal(was[~masked], now[~masked])
            step = abs(header.RescaleSlope)
            assert np.all(np.abs(now[masked] * header.RescaleSlope + header.RescaleIntercept - fill_hu) <= 1.5 * step)
            assert len(np.unique(now[masked])) <= 1
            assert not np.any(now[masked] == header.get("PixelPaddingValue", 1 << 20))
            assert without_pixels(before / instance.file) == without_pixels(after / instance.file)


@settings(max_examples=30, deadline=None)
@given(files=series())
def test_positions_rise_and_every_voxel_lies_where_its_file_says(files: list[CtFile]) -> None:
    """The volume's slices are those of the files, in the order of their positions along the normal."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = loaded_from(files, Path(folder))
        assert np.all(np.diff(loaded.volume.geometry.slice_positions_mm) > 0)
        by_position = {file.position: file for file in files}
        for k, origin in enumerate(loaded.volume.geometry.slice_origins_lps):
            file = next(f for position, f in by_position.items() if np.allclose(position, origin, atol=1e-4))
            assert np.allclose(loaded.volume.hu[k], file.stored * np.float32(file.slope) + np.float32(file.intercept))
