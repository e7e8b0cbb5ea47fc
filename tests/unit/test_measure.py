"""The tests' own measure of removed skin, on blocks whose answer is known."""

import numpy as np
import pytest

from ctdeface_worker.imaging.domain import FloatArray, Geometry, HuArray, Volume
from tests.support.measure.nose import window_by_nose
from tests.support.measure.skin import SkinResult, Window, facial_skin

AIR, SKIN, BONE = -1000.0, 40.0, 900.0
VOXEL_MM = 2.0
SKIN_ROW, BONE_ROW = 20, 28
WINDOW = Window(right_x=32.0, left_x=52.0, chin_z=20.0, brow_z=36.0, nose_y=SKIN_ROW * VOXEL_MM)


def block() -> HuArray:
    """A head of flesh before bone, index (slice, row, column): z, y and x in steps of 2 mm."""
    hu: HuArray = np.full((30, 60, 40), AIR, dtype=np.float32)
    hu[:, SKIN_ROW:, 4:36] = SKIN
    hu[:, BONE_ROW:, 4:36] = BONE
    return hu


def volume(hu: HuArray) -> Volume:
    """Give values an upright geometry."""
    affine: FloatArray = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = VOXEL_MM
    affine[3, 3] = 1.0
    return Volume(
        hu=hu, valid=np.ones(hu.shape, dtype=bool), geometry=Geometry.from_affine(hu.shape, affine)
    )


def measured(after: HuArray, before: HuArray | None = None) -> SkinResult:
    """Measure an output against the block, or another input."""
    return facial_skin(volume(block() if before is None else before), volume(after), WINDOW)


def test_nothing_is_gone_from_an_untouched_head() -> None:
    """Every ray still meets the old skin, from every side."""
    result = measured(block())
    assert (result.removed, result.worst_oblique) == (0.0, 0.0)
    assert result.counted > 80


def test_skin_taken_off_down_to_the_bone_is_gone() -> None:
    """The first surface is bone."""
    after = block()
    after[:, SKIN_ROW:BONE_ROW] = AIR
    assert measured(after).removed == 1.0


@pytest.mark.parametrize(("rows", "share"), [(1, 0.0), (2, 1.0)])
def test_a_surface_counts_as_gone_when_it_lies_three_millimeters_deeper(
    rows: int, share: float
) -> None:
    """A shave of 2 mm keeps the face, 4 mm do not."""
    after = block()
    after[:, SKIN_ROW : SKIN_ROW + rows] = AIR
    assert measured(after).removed == share


def test_half_a_face_is_half_gone() -> None:
    """Left and right weigh the same."""
    after = block()
    after[:, SKIN_ROW : SKIN_ROW + 5, 21:] = AIR
    assert measured(after).removed == pytest.approx(0.5, abs=0.1)


def test_a_slit_of_skin_left_over_is_seen() -> None:
    """Two columns of skin in front of the window are two columns of rays."""
    after = block()
    after[:, SKIN_ROW : SKIN_ROW + 5] = AIR
    after[:, SKIN_ROW : SKIN_ROW + 5, 18:20] = SKIN
    assert measured(after).removed == pytest.approx(1 - 2 / 11, abs=0.03)


def test_bone_at_the_surface_is_reported_and_not_counted() -> None:
    """What is bright in the input is no skin."""
    before = block()
    before[:, SKIN_ROW:, 21:] = BONE
    result = measured(before.copy(), before)
    assert result.bright == pytest.approx(0.5, abs=0.1)
    assert result.removed == 0.0


def test_a_face_cut_by_the_field_of_view_is_not_counted() -> None:
    """Flesh that begins at the first row has no air before it."""
    before = block()
    before[:, :SKIN_ROW] = SKIN
    assert facial_skin(volume(before), volume(before), WINDOW).counted == 0


def test_the_window_is_found_by_the_nose() -> None:
    """A bump between lower sides is the nose; a plain wall has none."""
    head = np.pad(block(), ((10, 30), (20, 0), (10, 10)), constant_values=AIR)
    head[:, SKIN_ROW + 20 :] = SKIN
    plain = head.copy()
    head[24:34, SKIN_ROW + 8 : SKIN_ROW + 20, 27:33] = SKIN
    found = window_by_nose(volume(head))
    assert found is not None
    assert found.nose_y == pytest.approx((SKIN_ROW + 8) * VOXEL_MM, abs=2)
    assert found.right_x < 27 * VOXEL_MM
    assert found.left_x > 33 * VOXEL_MM
    assert window_by_nose(volume(plain)) is None
