"""What resembles a face, on surfaces made by hand, and what the gate leaves out."""

import numpy as np
import pytest

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry
from ctdeface_worker.verification.faces import MOST_ALIKE, FaceLike, check_one_face, find_face_like
from ctdeface_worker.verification.surfaces import head_box, surface_maps

SHAPE = (80, 100, 180)
GEOMETRY = Geometry.from_affine(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]])
Z, X = (axis.astype(np.float64) for axis in np.mgrid[: SHAPE[0], : SHAPE[2]] * 2)
MIDDLE_Z, MIDDLE_X = 80.0, 270.0
UP, ASIDE = Z - MIDDLE_Z, X - MIDDLE_X
PLANE = np.zeros_like(Z)
BALL = np.sqrt(np.maximum(90.0**2 - UP**2 - ASIDE**2, 0))
RIDGE = 25 * np.exp(-((ASIDE / 10) ** 2))


def bump(up_mm: float, aside_mm: float, height_mm: float, width_mm: float) -> FloatArray:
    """A rounded bump on both sides of the middle."""
    across = np.minimum(np.abs(ASIDE - aside_mm), np.abs(ASIDE + aside_mm))
    return np.asarray(height_mm * np.exp(-((UP - up_mm) ** 2 + across**2) / width_mm**2))


KNOB = bump(0, 0, 25, 12)
TWO_KNEES = bump(0, 45, 60, 40)
NOSE = (
    24 * np.maximum(1 - np.abs(ASIDE) / 15, 0) * np.interp(UP, [-16, -6, 2, 42], [0, 0.9, 1, 0.25])
)
FACE = 0.5 * BALL + NOSE - bump(22, 28, 6, 14) + bump(42, 24, 4, 10) + bump(-30, 0, 5, 12)


def cavity() -> BoolArray:
    """The cavity of a head on the right of the patient."""
    inside = np.zeros(SHAPE, dtype=bool)
    inside[40:75, 40:90, 15:55] = True
    return inside


def seen(height_mm: FloatArray) -> Canonical:
    """A surface in front of a table; the table is 160 mm behind the upper end of the grid."""
    y = np.arange(SHAPE[1])[None, :, None] * 2.0
    solid = y >= (160 - height_mm)[:, None, :]
    hu = np.where(solid, np.float32(40), np.float32(-1000))
    return Canonical(
        hu=hu, valid=np.ones(SHAPE, dtype=bool), origin_lps=np.zeros(3), spacing_mm=2.0
    )


def test_a_simple_face_resembles_one() -> None:
    """A nose and two hollows on a rounded head; the place is named."""
    found = find_face_like(seen(FACE), cavity())
    check = check_one_face(found, GEOMETRY)
    assert not check.passed
    assert np.abs(found.at_lps[[0, 2]] - (MIDDLE_X, MIDDLE_Z)).max() < 20
    assert "on the patient's left" in check.message
    assert "at most 28.0 % is allowed" in check.message


@pytest.mark.parametrize(
    "height_mm",
    [PLANE, BALL, RIDGE, KNOB, TWO_KNEES],
    ids=["plane", "ball", "ridge", "knob", "knees"],
)
def test_a_simple_surface_does_not(height_mm: FloatArray) -> None:
    """A nose alone is not a face, and neither is anything round."""
    assert find_face_like(seen(height_mm), cavity()).alike < 0.8 * MOST_ALIKE


def test_the_examined_head_is_left_out() -> None:
    """The same face where the head is does not count."""
    at_head = np.roll(FACE, -100, axis=1)  # 200 mm to the patient's right
    assert find_face_like(seen(at_head), cavity()).alike < 0.1


def test_what_the_field_of_view_cuts_is_not_a_surface() -> None:
    """Tissue at the border has no measured air before it."""
    canonical = seen(PLANE + 200)
    box = head_box(cavity(), canonical.spacing_mm)
    from_front = next(iter(surface_maps(canonical, box)))
    assert not from_front.further.any()


def test_nothing_alike_passes() -> None:
    """The figure of most heads is 0."""
    check = check_one_face(FaceLike(at_lps=np.zeros(3), middle_mm=0.0), GEOMETRY)
    assert (check.passed, check.figure, check.name) == (True, 0.0, "one_face")
