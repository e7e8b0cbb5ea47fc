"""The gate's rays, and its check above a mask, on blocks with known answers."""

import numpy as np
import pytest

from ctdeface_worker.imaging.canonical import to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.verification.border import check_upper_border
from ctdeface_worker.verification.skin import trace_input, trace_output
from ctdeface_worker.verification.window import Window

AIR, FLESH, BONE = -1000.0, 40.0, 450.0
FRONT = 10
"""Row of the skin."""


def block(voxel_mm: float, bone_row: int, brow: int = 0) -> Volume:
    """Return a head of flesh (slice, row, column) with bone from one slice upward."""
    hu: HuArray = np.full((40, 60, 60), AIR, dtype=np.float32)
    hu[:, FRONT:, 4:56] = FLESH
    hu[brow:, bone_row : bone_row + 4, 4:56] = BONE
    affine: FloatArray = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])[[2, 1, 0, 3]]
    return Volume(
        hu=hu, valid=np.ones(hu.shape, dtype=bool), geometry=Geometry.from_affine(hu.shape, affine)
    )


def without(volume: Volume, rows: int) -> Volume:
    """Take so many rows of the front away."""
    hu = volume.hu.copy()
    hu[:, FRONT : FRONT + rows] = AIR
    return Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)


@pytest.mark.parametrize(("rows", "share"), [(0, 0.0), (1, 1.0)])
def test_thin_flesh_on_bone_counts_as_skin_and_is_gone_only_when_taken_off(
    rows: int, share: float
) -> None:
    """Thin bone 3 mm behind the skin does not make a ray bright."""
    volume = block(3.0, FRONT + 1)
    window = Window(low=np.array([45.0, 0.0, 30.0]), high=np.array([120.0, 170.0, 90.0]))
    rays = trace_output(trace_input(volume, window), without(volume, rows))
    assert rays.front.counted.sum() > 200
    assert not rays.front.bright.any()
    assert rays.removed[rays.front.counted].mean() == share


def upper_border(top: int) -> float | None:
    """Check a mask up to a slice on a head whose brow is slice 20."""
    volume = block(2.0, FRONT + 3, brow=20)
    face: BoolArray = np.zeros(volume.hu.shape, dtype=bool)
    face[2:top, FRONT : FRONT + 3, 10:50] = True
    check = check_upper_border(to_canonical(volume, spacing_mm=2.0), face)
    assert check is None or check.passed == (check.figure == 0.0)
    return None if check is None else check.figure


def test_a_mask_that_ends_on_the_forehead_passes_and_one_that_ends_below_the_brow_does_not() -> (
    None
):
    """Bone is behind the skin above the one, and none above the other."""
    assert upper_border(22) == 0.0
    assert upper_border(12) == 1.0


def test_where_nothing_is_in_view_above_a_mask_nothing_is_said() -> None:
    """The field of view ends there."""
    assert upper_border(40) is None
