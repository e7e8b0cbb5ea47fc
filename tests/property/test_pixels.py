"""Exactly the masked voxels change, to the fill, and nothing else in the file does."""

import random
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import LoadedSeries, load
from ctdeface_worker.dicom.writer import write_series
from ctdeface_worker.imaging.domain import FaceMask
from ctdeface_worker.pipeline.fill import fill_stored
from tests.support.ct_files import CtFile

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
TILTED = (1.0, 0.0, 0.0, 0.0, 0.9483237, -0.3173047)
ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "tilted": TILTED,
    "feet first": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}


def noise(
    random_values: np.random.Generator, low: int, high: int, *, signed: bool
) -> NDArray[np.int16] | NDArray[np.uint16]:
    """Random stored values of one slice."""
    if not signed:
        return random_values.integers(low, high, (6, 8), endpoint=True).astype(np.uint16)
    stored = random_values.integers(low, high, (6, 8), endpoint=True).astype(np.int16)
    stored[0, 0] = -1  # shows what stands above the stored bits
    return stored


@st.composite
def series(draw: st.DrawFn) -> list[CtFile]:
    """Draw the files of one volume in any encoding and order."""
    signed, bits = draw(st.booleans()), draw(st.integers(10, 16))
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    slope = draw(
        st.one_of(
            st.sampled_from([1.0, 0.5, 2.0]), st.integers(4000, 30000).map(lambda n: n / 10000)
        )
    )
    slope *= draw(st.sampled_from([1, 1, 1, -1]))
    darkest, brighter = (low, 1) if slope > 0 else (high, -1)
    bare = signed and draw(st.booleans())  # zeros instead of the sign above the stored bits
    padding = None if bare else draw(st.sampled_from([None, darkest, darkest + 7 * brighter]))
    offset = draw(st.integers(0, 400)) / 10
    orientation = ORIENTATIONS[draw(st.sampled_from(sorted(ORIENTATIONS)))]
    # A gantry tilt: the slices step straight up in z although their normal leans.
    step = (
        (0.0, 0.0, 2.0)
        if orientation == TILTED
        else tuple(2 * np.cross(orientation[:3], orientation[3:]))
    )
    random_values = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(3, 6))
    numbers = range(count, 0, -1) if draw(st.booleans()) else range(1, count + 1)
    files = []
    for k, number in enumerate(numbers):
        stored = noise(random_values, low, high, signed=signed)
        elements: dict[str, Any] = (
            {"DataSetTrailingPadding": bytes(10)} if draw(st.booleans()) else {}
        )
        if padding is not None:
            stored[stored == padding] = padding + brighter
            stored[:, 0] = padding  # outside the field of view in all slices
            elements["PixelPaddingValue"] = padding
        if bare:
            stored &= np.int16((1 << bits) - 1) if bits < 16 else np.int16(-1)
        position = (step[0] * k + 3.0, step[1] * k - 5.0, step[2] * k + 1.0)
        # The darkest stored value is below -1024 HU, so padding never is tissue and air can be
        # held.
        intercept = round(-1100.0 - slope * (darkest + 7 * brighter) - offset + k, 6)
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
    for name, file in enumerate(random.Random(len(files)).sample(files, len(files))):
        (folder / f"{name}").write_bytes(file.content)
    selection = select(read_case(folder))
    assert not selection.others
    return load(selection.series[0])


def words(path: Path) -> NDArray[Any]:
    """Return the stored integers as pydicom reads them."""
    return np.asarray(pydicom.dcmread(path).pixel_array)


def without_pixels(path: Path) -> bytes:
    """Return the file, inflated, without its pixel bytes as pydicom finds them."""
    content, dataset = path.read_bytes(), pydicom.dcmread(path)
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        body = 128 + 4 + 12 + dataset.file_meta.FileMetaInformationGroupLength
        content = content[:body] + zlib.decompress(content[body:], wbits=-zlib.MAX_WBITS)
        start = content.index(b"\xe0\x7f\x10\x00OW") + 12
        return content[:start] + content[start + len(dataset.PixelData) :]
    raw = dataset.get_item(0x7FE00010)
    assert isinstance(raw, RawDataElement)
    return content[: raw.value_tell] + content[raw.value_tell + raw.length :]


def expected_fill(header: pydicom.Dataset, fill_hu: float) -> set[int]:
    """Return the stored integers that may represent the fill.

    These are the rounded one within BitsStored, or its neighbors where that is padding.
    """
    bits, signed = header.BitsStored, header.PixelRepresentation == 1
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    value = min(
        max(round((fill_hu - float(header.RescaleIntercept)) / float(header.RescaleSlope)), low),
        high,
    )
    return {value} if value != header.get("PixelPaddingValue") else {value - 1, value + 1}


@settings(max_examples=60, deadline=None)
@given(
    files=series(),
    seed=st.integers(0, 2**32 - 1),
    fill_hu=st.sampled_from([-1000.0, -1024.0, -876.5]),
)
def test_exactly_the_masked_voxels_change_to_the_fill_and_nothing_else_in_the_file(
    files: list[CtFile], seed: int, fill_hu: float
) -> None:
    """For any rescale, bits, signedness, padding, byte order, file order and orientation."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before"), Path(folder, "after")
        before.mkdir()
        after.mkdir()
        loaded = loaded_from(files, before)
        face = np.random.default_rng(seed).random(loaded.volume.geometry.shape) < 0.3
        written = write_series(
            loaded,
            fill_stored(loaded, FaceMask(face=face, geometry=loaded.volume.geometry), fill_hu),
            after,
        )
        for instance in written:
            was, now = words(before / instance.file), words(after / instance.file)
            header = pydicom.dcmread(before / instance.file)
            masked = face[instance.slice_number] & (was != header.get("PixelPaddingValue", 1 << 20))
            assert np.array_equal(was[~masked], now[~masked])
            assert {int(value) for value in np.unique(now[masked])} <= expected_fill(
                header, fill_hu
            )
            assert len(np.unique(now[masked])) <= 1
            assert not np.any(now[masked] == header.get("PixelPaddingValue", 1 << 20))
            assert without_pixels(before / instance.file) == without_pixels(after / instance.file)


@settings(max_examples=30, deadline=None)
@given(files=series())
def test_positions_rise_and_every_voxel_lies_where_its_file_says(files: list[CtFile]) -> None:
    """The slices of the volume are those of the files, ordered along the normal."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = loaded_from(files, Path(folder))
        assert np.all(np.diff(loaded.volume.geometry.slice_positions_mm) > 0)
        by_position = {file.position: file for file in files}
        for k, origin in enumerate(loaded.volume.geometry.slice_origins_lps):
            file = next(
                f for position, f in by_position.items() if np.allclose(position, origin, atol=1e-4)
            )
            unused = 16 - file.bits_stored  # filled with the sign or with zeros: neither counts
            values = np.right_shift(np.left_shift(file.stored, unused), unused)
            assert np.allclose(
                loaded.volume.hu[k], values * np.float32(file.slope) + np.float32(file.intercept)
            )
