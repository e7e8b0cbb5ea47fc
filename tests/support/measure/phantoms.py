"""Positions of the faces of phantoms, known by construction.

The window turns with the head, so that rays come from the front of the face. How a head is bent (6
mm at most) is left out.
"""

from dataclasses import replace

import numpy as np

from ctdeface_worker.phantom import anatomy
from ctdeface_worker.phantom.build import Anatomy, build
from ctdeface_worker.phantom.head import in_model
from ctdeface_worker.phantom.scan import rotation
from ctdeface_worker.phantom.scenes import draw_scene, scene_rng
from tests.support.measure.skin import Window

RIM_X = 53.0
"""The frontal process of the zygomatic bone, in the anatomy's own frame as the others."""
BROW_Z = 36.0
NOSE_Y, NOSE_Z = -112.0, -8.0
NOSE_ROUND_MM = 8.5
CHIN = (0.0, -72.0, -93.0)
"""Lowest point of the bony chin, mouth closed."""


def window_by_construction(made: Anatomy) -> Window:
    """Place the window on a head that is not turned."""
    rim_x, _, brow_z = in_model((RIM_X, 0.0, BROW_Z), made)
    _, _, chin_z = in_model(anatomy.lowered(CHIN, made), made)
    tip = NOSE_Y - made.nose_mm - NOSE_ROUND_MM - made.nose_width_mm / 3
    _, nose_y, _ = in_model((0.0, tip, NOSE_Z - made.nose_tip_mm), made)
    return Window(right_x=-rim_x, left_x=rim_x, chin_z=chin_z, brow_z=brow_z, nose_y=nose_y)


def window_of_synthetic(seed: int) -> Window:
    """Place the window on a head that `make_head` draws."""
    return window_by_construction(build(seed))


def window_of_scene(seed: int, *, unseen: bool) -> Window:
    """Return the window of a head in a scene; mirroring does not change it."""
    drawn = draw_scene(seed, scene_rng(seed, unseen=unseen), unseen=unseen)
    axes = np.asarray(rotation(drawn.scan).as_matrix(), dtype=np.float64)
    return replace(window_by_construction(drawn.anatomy), axes=axes)
