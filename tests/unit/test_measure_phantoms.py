"""The window of a phantom is where its landmarks are, rotated or not."""

import numpy as np
import pytest

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Volume
from ctdeface_worker.phantom.build import draw
from ctdeface_worker.phantom.head import SMALL_MM, Phantom, make_head, model
from ctdeface_worker.phantom.scenes import scene
from tests.support.measure.nose import window_by_nose
from tests.support.measure.phantoms import (
    window_by_construction,
    window_of_scene,
    window_of_synthetic,
)
from tests.support.measure.skin import SkinResult, Window, facial_skin

STRAIGHT, TILTED, LEANING = 251, 118, 66
"""Unseen scenes: an open mouth without rotation, two rotations of up to 25°."""
LEAST_RAYS = {STRAIGHT: 1300, TILTED: 1900, LEANING: 2200}
"""Rays that a window from brow to chin has there."""


def without(head: Phantom, mask: BoolArray) -> Volume:
    """Fill a mask with air."""
    return Volume(
        hu=np.where(mask, np.float32(-1000), head.volume.hu),
        valid=head.volume.valid,
        geometry=head.volume.geometry,
    )


def at_mm(volume: Volume, mask: BoolArray) -> FloatArray:
    """LPS mm of the voxels of a mask."""
    geometry = volume.geometry
    slices, rows, columns = np.nonzero(mask)
    in_plane = rows[:, None] * geometry.row_step_lps + columns[:, None] * geometry.column_step_lps
    return np.asarray(geometry.slice_origins_lps[slices] + in_plane)


def gone(head: Phantom, window: Window, mask: BoolArray) -> SkinResult:
    """Measure from the front."""
    return facial_skin(head.volume, without(head, mask), window, views=("front",))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_drawn_nose_is_where_the_nose_is_found(seed: int) -> None:
    """Two ways to the same window, of which one knows nothing of the drawing."""
    drawn, found = (
        window_of_synthetic(seed),
        window_by_nose(make_head(seed, spacing_mm=SMALL_MM).volume),
    )
    assert found is not None
    assert drawn.nose_y == pytest.approx(found.nose_y, abs=3)
    assert drawn.center[0] == pytest.approx(found.center[0], abs=3)
    assert drawn.center[2] == pytest.approx(found.center[2], abs=20)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_landmarks_lie_on_drawn_bones(seed: int) -> None:
    """Jaw, brow, orbits and nose in the image agree with the window."""
    made = draw(seed, unseen=True)
    head, window = (
        model(made, spacing_mm=(2.0, 2.0, 2.0), reach_mm=(-150.0, 80.0)).volume,
        window_by_construction(made),
    )
    bone = at_mm(head, head.hu > 300)
    x, y, z = (bone / made.scale).T
    assert window.chin_z == pytest.approx(bone[(y < -55) & (abs(x) < 15)][:, 2].min(), abs=2.5)
    ridges = bone[(abs(x) > 14) & (abs(x) < 34) & (z > 24) & (z < 60)]
    assert window.brow_z == pytest.approx(
        ridges[ridges[:, 1] <= ridges[:, 1].min() + 2][:, 2].mean(), abs=2
    )
    outermost = bone[(y < -50) & (abs(z - 16) < 6)][:, 0].max()
    assert outermost - 8 < window.left_x < outermost
    assert window.right_x == -window.left_x
    assert window.nose_y == pytest.approx(at_mm(head, head.hu > -300)[:, 1].min(), abs=3)


@pytest.mark.parametrize("seed", [STRAIGHT, TILTED, LEANING])
def test_the_window_turns_with_the_head(seed: int) -> None:
    """Rays count almost the whole true face, half of its half, and nothing without it."""
    head, window = scene(seed, unseen=True), window_of_scene(seed, unseen=True)
    whole = gone(head, window, head.face)
    assert whole.removed > 0.99
    assert whole.counted > LEAST_RAYS[seed]
    assert gone(head, window, np.zeros_like(head.face)).removed == 0
    right = head.face.copy()
    right[head.face] = (at_mm(head.volume, head.face) - window.center) @ window.axes[:, 0] < 0
    assert gone(head, window, right).removed == pytest.approx(0.5, abs=0.06)
