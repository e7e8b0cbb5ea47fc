"""Padding stays only where it cannot draw the face."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ctdeface_shared.errors import UnsupportedObject
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import LoadedSeries, load
from ctdeface_worker.imaging.domain import FaceMask
from ctdeface_worker.pipeline.fill import fill_stored
from tests.support.ct_files import CtFile, put, stack

SIZE = 40
PADDING = -2000
AIR = -1000
ROW, COLUMN = np.mgrid[:SIZE, :SIZE]
ROUND = (ROW - 19.5) ** 2 + (COLUMN - 19.5) ** 2 < 19.5**2


def slices(valid: list[NDArray[Any]], padding: list[int], **elements: Any) -> list[CtFile]:
    """Slices of noise, with padding outside a region of each."""
    values = np.random.default_rng(5)
    files = stack(len(valid), intercept=0.0)
    return [
        replace(
            file,
            stored=np.where(
                region,
                values.integers(-900, 200, (SIZE, SIZE)),
                values.choice(padding, (SIZE, SIZE)),
            ).astype(np.int16),
            elements={"PixelPaddingValue": padding[0], **elements},
        )
        for file, region in zip(files, valid, strict=True)
    ]


def loaded(folder: Path, files: list[CtFile]) -> LoadedSeries:
    """The one series of the files."""
    return load(select(read_case(put(folder, files))).series[0])


def filled(one: LoadedSeries) -> NDArray[Any]:
    """All words after a mask of the upper half is filled."""
    face = np.zeros(one.volume.geometry.shape, dtype=bool)
    face[:, :20] = True
    return np.stack(fill_stored(one, FaceMask(face=face, geometry=one.volume.geometry), AIR))


def test_one_value_around_a_field_of_view_stays(tmp_path: Path) -> None:
    """Scanners write it outside the circle that they measure."""
    one = loaded(tmp_path, slices([ROUND] * 4, [PADDING]))
    assert not one.volume.valid[:, ~ROUND].any()
    after = filled(one).view(np.int16)
    assert np.all(after[:, ~ROUND] == PADDING)
    assert np.all(after[:, :20][:, ROUND[:20]] == AIR)


@pytest.mark.parametrize(
    "valid",
    [
        [ROUND & (2 * k < COLUMN) for k in range(4)],
        [ROUND & ~((ROW > 5) & (ROW < 12) & (COLUMN > 12) & (COLUMN < 30))] * 4,
        [~ROUND] * 4,
    ],
    ids=["an outline per slice", "a drawing in the mask", "a dent"],
)
def test_padding_that_follows_an_outline_is_filled(
    tmp_path: Path, valid: list[NDArray[Any]]
) -> None:
    """A scan whose background was padded shows the face by what is not padded."""
    after = filled(loaded(tmp_path, slices(valid, [PADDING]))).view(np.int16)
    assert np.all(after[:, :20] == AIR)


def test_several_padding_values_are_filled(tmp_path: Path) -> None:
    """A range within air may hold any faint picture."""
    values = list(range(-2000, -1000, 10))
    files = slices([ROUND] * 4, values, PixelPaddingRangeLimit=-1001)
    after = filled(loaded(tmp_path, files)).view(np.int16)
    assert np.all(after[:, :20] == AIR)


@pytest.mark.parametrize("value", [12_000, 15_000])
def test_bright_padding_is_one_value_around_a_field_of_view(tmp_path: Path, value: int) -> None:
    """It cannot count as air, so that anything else is refused."""
    loaded(tmp_path / "a", slices([ROUND] * 4, [value]))
    drawn = [ROUND & (2 * k < COLUMN) for k in range(4)]
    with pytest.raises(UnsupportedObject, match="could draw a picture"):
        loaded(tmp_path / "b", slices(drawn, [value]))
    several = list(range(value, value + 200))
    with pytest.raises(UnsupportedObject, match="hide tissue or a picture"):
        loaded(tmp_path / "c", slices([ROUND] * 4, several, PixelPaddingRangeLimit=several[-1]))
