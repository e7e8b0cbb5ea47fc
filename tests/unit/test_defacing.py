"""The fill: the case's own air, never tissue, never padding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ctdeface_shared.errors import UnsupportedObject
from ctdeface_shared.jobs.options import FillRule
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import LoadedSeries, load
from ctdeface_worker.imaging.domain import FaceMask, Geometry, PixelFormat, Volume
from ctdeface_worker.imaging.nifti import write_nifti
from ctdeface_worker.pipeline.fill import fill_stored, fill_stored_value, fill_value_hu
from tests.support.ct_files import CtFile, put, stack

GEOMETRY = Geometry.from_affine(
    (2, 5, 10), np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
)
PIXELS = PixelFormat(rows=5, columns=10, bits_stored=12, signed=False, slope=1.0, intercept=-1024.0)


def volume(*values: float) -> Volume:
    """A volume that holds the values, each as often as the others; -1500 is padding."""
    hu = np.resize(np.array(values, dtype=np.float32), GEOMETRY.shape)
    return Volume(hu=hu, valid=hu != -1500, geometry=GEOMETRY)


def loaded(folder: Path, files: list[CtFile]) -> LoadedSeries:
    """Load the one series of the files."""
    return load(select(read_case(put(folder, files))).series[0])


def everything(series: LoadedSeries) -> FaceMask:
    """A mask of all voxels."""
    return FaceMask(
        face=np.ones(series.volume.geometry.shape, dtype=bool), geometry=series.volume.geometry
    )


def test_air_is_the_median_of_the_case_s_own_air() -> None:
    """Tissue and padding do not count."""
    assert fill_value_hu(volume(-990, -1500, 40, -990, 1000), FillRule()) == -990


def test_without_air_in_view_the_fill_is_minus_1000() -> None:
    """A volume cropped to the head."""
    assert fill_value_hu(volume(40, 50), FillRule()) == -1000


def test_p10_is_the_tenth_percentile_of_measured_voxels_and_never_tissue() -> None:
    """Padding is left out, and -800 HU is the limit."""
    assert fill_value_hu(volume(-1500, -1010, 40), FillRule.parse("p10")) == -1010
    assert fill_value_hu(volume(40, 50), FillRule.parse("p10")) == -800


def test_a_fixed_fill_is_taken_as_it_is() -> None:
    """In HU."""
    assert fill_value_hu(volume(40), FillRule.parse("-950")) == -950


@pytest.mark.parametrize(
    ("padding", "fill_hu", "expected"),
    [
        (None, -1000, 24),
        ((24, 24), -1000, 25),
        ((0, 0), -1024, 1),
        ((0, 30), -1000, 31),
        (None, -3000, 0),
    ],
)
def test_the_stored_fill_lies_within_the_stored_bits_and_is_never_padding(
    padding: tuple[int, int] | None, fill_hu: float, expected: int
) -> None:
    """A neighbor is taken where the rounded value means padding."""
    assert fill_stored_value(replace(PIXELS, padding=padding), fill_hu) == expected


def test_pixels_that_cannot_hold_air_are_refused(tmp_path: Path) -> None:
    """Unsigned integers without a negative intercept: the darkest possible fill would be water."""
    series = loaded(tmp_path, stack(3, intercept=0.0))
    with pytest.raises(UnsupportedObject):
        fill_stored(series, everything(series), -1000)


def test_padding_that_would_hide_tissue_is_refused(tmp_path: Path) -> None:
    """A padding value of 40 HU would leave skin of exactly that value in place."""
    with pytest.raises(UnsupportedObject):
        loaded(tmp_path, stack(3, intercept=0.0, elements={"PixelPaddingValue": 40}))


def test_pictures_hidden_in_unused_bits_are_refused(tmp_path: Path) -> None:
    """Four bits above twelve hold something although no overlay is declared."""
    stored = np.full((6, 8), 0x3123, dtype=np.uint16)
    with pytest.raises(UnsupportedObject):
        loaded(tmp_path, stack(3, stored=stored, bits_stored=12))


@pytest.mark.parametrize(("odd", "refused"), [(0xF830, False), (0xF831, True)])
def test_padding_may_use_all_bits_but_draw_no_picture(
    tmp_path: Path, odd: int, refused: bool
) -> None:
    """Scanners write -2000 as a whole word; several padding words could form a picture."""
    stored = np.full((6, 8), 1024, dtype=np.uint16)
    stored[0, :4] = (0xF830, odd, 0xF830, odd)
    files = stack(
        3,
        stored=stored,
        bits_stored=12,
        elements={"PixelPaddingValue": 0xF830, "PixelPaddingRangeLimit": 0xFFFF},
    )
    if refused:
        with pytest.raises(UnsupportedObject, match="unused bits"):
            loaded(tmp_path, files)
    else:
        assert np.count_nonzero(~loaded(tmp_path, files).volume.valid) == 3 * 4


@pytest.mark.parametrize("sign_extended", [True, False])
def test_negative_values_in_few_bits_are_read_and_filled_the_way_the_file_writes_them(
    tmp_path: Path, sign_extended: bool
) -> None:
    """Some scanners repeat the sign in unused bits, some leave zeros."""
    stored = np.full((6, 8), -5 if sign_extended else 0x0FFB, dtype=np.int16)
    series = loaded(tmp_path, stack(3, stored=stored, bits_stored=12, intercept=0.0))
    assert np.all(series.volume.hu == -5)
    (first, *_) = fill_stored(series, everything(series), -1000)
    assert np.all(first.view(np.int16) == (-1000 if sign_extended else 0x1000 - 1000))


def test_nifti_holds_the_volume_where_it_lies(tmp_path: Path) -> None:
    """SimpleITK, which reads NIfTI back into LPS, finds the same positions and values."""
    series = loaded(
        tmp_path / "in",
        [replace(file, position=(5.0, -7.0, 2.0 * file.number)) for file in stack(4)],
    )
    write_nifti(series.volume, tmp_path / "case" / "x.nii.gz")
    image = sitk.ReadImage(tmp_path / "case" / "x.nii.gz")
    assert np.array_equal(sitk.GetArrayFromImage(image), series.volume.hu.astype(np.int16))
    assert image.TransformIndexToPhysicalPoint((3, 2, 1)) == pytest.approx(
        (8.0, -5.0, 4.0), abs=1e-4
    )
