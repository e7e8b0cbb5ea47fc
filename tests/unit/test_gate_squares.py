"""Masks that leave a face behind the first surface fail, on blocks with known answers."""

import numpy as np
import pytest

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.verification.skin import trace_input, trace_output
from ctdeface_worker.verification.skin_checks import check_skin
from ctdeface_worker.verification.window import Window

AIR, FLESH, BONE = -1000.0, 40.0, 450.0
MM = 2.0
SKIN = 40
"""Row of the skin."""
THICK, THIN = 8, 4
"""Rows of flesh before the bone: 16 and 8 mm."""
MIDDLE = slice(20, 40)
"""Columns: 40 mm."""
NOSE = slice(26, 34)
"""Columns: 16 mm."""
SHAPE = (40, 90, 60)
ALL = slice(None)


def head(flesh: int | None = THICK, *, cover: bool = False) -> Volume:
    """Return flesh before bone (slice, row, column), perhaps with a cloth 10 mm before the skin."""
    hu: HuArray = np.full(SHAPE, AIR, dtype=np.float32)
    hu[:, SKIN:, 4:56] = FLESH
    if flesh is not None:
        hu[:, SKIN + flesh : SKIN + flesh + 4, 4:56] = BONE
    if cover:
        hu[:, SKIN - 8 : SKIN - 5, 4:56] = FLESH
        hu[:, SKIN - 8 : SKIN, [*range(4, 14), *range(46, 56)]] = FLESH
    affine: FloatArray = np.diag([MM, MM, MM, 1.0])[[2, 1, 0, 3]]
    return Volume(
        hu=hu, valid=np.ones(hu.shape, dtype=bool), geometry=Geometry.from_affine(hu.shape, affine)
    )


def with_more(volume: Volume, part: tuple[slice, slice, slice], value: float) -> Volume:
    """The same volume with a block of one value in it."""
    hu = volume.hu.copy()
    hu[part] = value
    return Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)


def refused(volume: Volume, removed: BoolArray, high_mm: float = 74.0) -> set[str]:
    """Return the failed checks of a mask, in a window from 10 mm up to a height."""
    after = Volume(
        hu=np.where(removed, np.float32(AIR), volume.hu),
        valid=volume.valid,
        geometry=volume.geometry,
    )
    window = Window(low=np.array([18.0, -10.0, 10.0]), high=np.array([100.0, 178.0, high_mm]))
    return {
        check.name
        for check in check_skin(trace_output(trace_input(volume, window), after), bone_stays=True)
        if not check.passed
    }


def before(row: int) -> BoolArray:
    """Everything before a row."""
    rows: BoolArray = np.arange(SHAPE[1])[None, :, None] < row
    return np.broadcast_to(rows, SHAPE).copy()


def left(removed: BoolArray, row: int) -> BoolArray:
    """The same, but from a row on the middle stays."""
    out = removed.copy()
    out[:, row:, MIDDLE] = False
    return out


@pytest.mark.parametrize("high_mm", [74.0, 22.0])
def test_the_middle_of_a_face_must_go_deeper_than_a_layer(high_mm: float) -> None:
    """Removing 8 mm leaves its relief, also in a view lower than the examined square."""
    right = before(SKIN + THICK)
    assert not refused(head(), right, high_mm)
    assert "face_not_peeled" in refused(head(), left(right, SKIN + 4), high_mm)
    assert "face_not_peeled" not in refused(head(), left(right, SKIN + 6), high_mm)


def test_skin_behind_a_cloth_is_no_less_skin() -> None:
    """The cloth, the first surface, is gone; the skin 16 mm behind had air before it."""
    volume = head(THIN, cover=True)
    right = before(SKIN + THIN)
    assert not refused(volume, right)
    assert {"no_skin_left_behind_a_cover", "facial_bone_uncovered"} <= refused(
        volume, left(right, SKIN)
    )
    assert "no_skin_left_behind_a_cover" in refused(
        volume, left(right, SKIN + 2)
    )  # a layer of it gone
    assert not refused(volume, left(right, SKIN + THIN))


def test_where_hardly_any_bone_lies_behind_the_skin_nobody_can_tell_where_a_mask_ends() -> None:
    """A right mask ends on the facial bone, so a view without any proves nothing."""
    assert refused(head(None), before(SKIN + THICK)) == {"facial_bone_found"}


def test_strips_of_a_face_are_no_less_than_squares_of_it() -> None:
    """Every third column left 6 mm deep fills no square, but a third of the face."""
    striped = before(SKIN + THICK)
    striped[:, SKIN + 3 :, ::3] = False
    assert refused(head(), striped) >= {"no_strips_left"}


def test_a_nose_must_go_to_its_base() -> None:
    """A nose of 20 mm that is moved back by 12 mm is still a nose."""
    volume = with_more(head(), (ALL, slice(SKIN - 10, SKIN), NOSE), FLESH)
    right = before(SKIN + THICK)
    assert not refused(volume, right)
    moved = right.copy()
    moved[:, SKIN - 4 :, NOSE] = False
    assert refused(volume, moved) == {"foremost_part_removed"}


def test_a_plate_on_the_skin_hides_nothing_behind_it() -> None:
    """Rays that meet metal first are not counted, but the flesh behind it is examined."""
    volume = with_more(head(), (ALL, slice(SKIN - 3, SKIN), MIDDLE), BONE)
    assert "face_not_peeled" not in refused(volume, before(SKIN + THICK))
    assert "face_not_peeled" in refused(volume, left(before(SKIN + THICK), SKIN))


def test_what_stands_out_far_before_a_face_must_not_hide_it() -> None:
    """Behind a block that begins 70 mm before the skin, the face is not examined."""
    volume = with_more(head(), (slice(12, 28), slice(SKIN - 35, SKIN), slice(22, 38)), FLESH)
    assert "face_seen" in refused(volume, before(SKIN + THICK))
