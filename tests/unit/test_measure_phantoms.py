"""The window on a drawn head: where its landmarks were put is where its face is found, turned or not."""

import numpy as np
import pytest

from ctdeface_worker.domain import BoolArray, Volume
from ctdeface_worker.phantom.head import SMALL_MM, Phantom, make_head
from ctdeface_worker.phantom.scenes import scene
from tests.measure.nose import window_by_nose
from tests.measure.phantoms import window_of_scene, window_of_synthetic
from tests.measure.skin import SkinResult, Window, facial_skin

STRAIGHT, LEANING = 85, 66
"""Unseen scenes: one that looks ahead, and one turned by 16° to the right, 22° upward and 25° to the side."""


def without(head: Phantom, mask: BoolArray) -> Volume:
    """Fill a mask with air."""
    return Volume(hu=np.where(mask, np.float32(-1000), head.volume.hu), valid=head.volume.valid, geometry=head.volume.geometry)


def gone(head: Phantom, window: Window, mask: BoolArray) -> SkinResult:
    """Measure from the front."""
    return facial_skin(head.volume, without(head, mask), window, views=("front",))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_drawn_nose_is_where_the_nose_is_found(seed: int) -> None:
    """Two ways to the same window, of which one knows nothing of the drawing."""
    drawn, found = window_of_synthetic(seed), window_by_nose(make_head(seed, spacing_mm=SMALL_MM).volume)
    assert found is not None
    assert drawn.nose_y == pytest.approx(found.nose_y, abs=3)
    assert drawn.center[0] == pytest.approx(found.center[0], abs=3)
    assert drawn.center[2] == pytest.approx(found.center[2], abs=20)


@pytest.mark.parametrize("seed", [STRAIGHT, LEANING])
def test_the_window_turns_with_the_head(seed: int) -> None:
    """The true face is nearly all that the rays meet, its right half nearly half of it, and with nothing taken all of it stays."""
    head, window = scene(seed, unseen=True), window_of_scene(seed, unseen=True)
    assert gone(head, window, head.face).removed > 0.99
    assert gone(head, window, np.zeros_like(head.face)).removed == 0
    origin = head.volume.geometry.slice_origins_lps
    slices, rows, columns = np.nonzero(head.face)
    at = origin[slices] + rows[:, None] * head.volume.geometry.row_step_lps + columns[:, None] * head.volume.geometry.column_step_lps
    right = head.face.copy()
    right[slices, rows, columns] = (at - window.center) @ window.axes[:, 0] < 0
    assert gone(head, window, right).removed == pytest.approx(0.5, abs=0.05)
