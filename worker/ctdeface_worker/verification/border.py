"""Whether a mask ends above on the forehead: there bone lies right behind the skin, at the level of the eyes it does not."""

import numpy as np
from numpy.typing import NDArray

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.verification.check import Check

SKIN_HU = -300.0
BONE_HU = 200.0
DEEP_MM = 20.0
"""The frontal bone lies nearer to the skin, also along a level ray to a head that leans; the bone behind an eye does not."""
MOST_DEEP = 0.2
"""Of the rays on one side of the nose."""
BESIDE_MM = (14.0, 40.0)
"""The eyes, from the middle of the mask."""
ABOVE_MM = (4.0, 8.0)
"""Where is looked, from the highest skin that is removed."""
STEEPEST = 1.0
"""Where the skin recedes faster than this (mm per mm), at vertex and temple, depth along a level ray says nothing."""
SLOPE_VOXELS = 2
LOOK_MM = 60.0


def check_upper_border(canonical: Canonical, face: BoolArray) -> Check | None:
    """Check the skin just above a mask; None where hardly any is in view, as in a scan that ends below the brow or a mask up to the vertex.

    Args:
        canonical: the input.
        face: the mask, (z, y, x) on the same grid.
    """
    mm = canonical.spacing_mm
    patient = (canonical.hu > SKIN_HU) & canonical.valid
    tissue = face & patient
    if not tissue.any():
        return None
    skin = patient.argmax(axis=1)
    gone = patient.any(axis=1) & np.take_along_axis(tissue, skin[:, None, :], axis=1)[:, 0]
    top = gone.shape[0] - 1 - gone[::-1].argmax(axis=0)
    middle = float(np.average(np.arange(tissue.shape[2]), weights=tissue.sum(axis=(0, 1))))
    aside = (np.arange(tissue.shape[2]) - middle) * mm
    sides = [
        gone.any(axis=0) & (side * aside >= BESIDE_MM[0]) & (side * aside <= BESIDE_MM[1])
        for side in (-1, 1)
    ]
    shares = [_deep(canonical, patient, skin, (np.flatnonzero(side), top[side])) for side in sides]
    deepest = max((share for share in shares if share is not None), default=None)
    if deepest is None:
        return None
    return Check(
        name="ends_on_forehead",
        passed=deepest <= MOST_DEEP,
        figure=deepest,
        bound=MOST_DEEP,
        message=f"just above what is removed {deepest:.0%} of the rays to one side meet skin without bone soon behind it, as over an eye",
    )


def _deep(
    canonical: Canonical,
    patient: BoolArray,
    skin: NDArray[np.intp],
    border: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> float | None:
    """Return the share of rays above a border (columns, their highest removed slices) that meet no bone soon; None for too few of them."""
    mm = canonical.spacing_mm
    columns, highest = border
    found: list[bool] = []
    steep = _steep(skin)
    for above in range(round(ABOVE_MM[0] / mm), round(ABOVE_MM[1] / mm) + 1):
        for column, last in zip(columns, highest, strict=True):
            z = last + above
            if z >= patient.shape[0] or steep[z, column] or not patient[z, skin[z, column], column]:
                continue
            along = slice(skin[z, column], skin[z, column] + round(LOOK_MM / mm))
            hard = canonical.hu[z, along, column] > BONE_HU
            if hard.any() or canonical.valid[z, along, column].all():
                found.append(bool(not hard.any() or hard.argmax() * mm > DEEP_MM))
    enough = 0.5 * (BESIDE_MM[1] - BESIDE_MM[0]) / mm * ((ABOVE_MM[1] - ABOVE_MM[0]) / mm + 1)
    return float(np.mean(found)) if len(found) >= enough else None


def _steep(skin: NDArray[np.intp]) -> BoolArray:
    """Where the surface (z, x) recedes faster than `STEEPEST`, and at its borders, where nobody knows."""
    steep: BoolArray = np.ones(skin.shape, dtype=bool)
    inner = (slice(SLOPE_VOXELS, -SLOPE_VOXELS), slice(SLOPE_VOXELS, -SLOPE_VOXELS))
    step = 2 * SLOPE_VOXELS
    upward, sideways = (
        np.abs(
            np.take(skin, range(step, skin.shape[i]), i)
            - np.take(skin, range(skin.shape[i] - step), i)
        )
        for i in (0, 1)
    )
    steep[inner] = np.maximum(upward[:, inner[1]], sideways[inner[0]]) > STEEPEST * step
    return steep
