"""Check that a mask ends on the forehead.

Bone is close behind the skin of the forehead. At the level of the eyes it is not.
"""

import numpy as np
from numpy.typing import NDArray

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.verification.check import Check, at_most, percent
from ctdeface_worker.verification.hounsfield import BONE_HU, SKIN_HU

DEEP_MM = 20.0
"""Largest depth of the frontal bone along a level ray, also in a head that leans.

Bone behind an eye is deeper.
"""
MOST_DEEP = 0.2
"""Largest share of rays without bone within `DEEP_MM`, on either side of the nose."""
BESIDE_MM = (14.0, 40.0)
"""Lateral range of the eyes, from the middle of the mask."""
ABOVE_MM = (4.0, 8.0)
"""Range above the highest removed skin in which rays are examined."""
STEEPEST = 1.0
"""Largest slope of the skin (mm per mm).

At vertex and temple it is steeper, and the depth along a level ray means nothing.
"""
SLOPE_VOXELS = 2
RAY_LENGTH_MM = 60.0


def check_upper_border(canonical: Canonical, face: BoolArray) -> Check | None:
    """Check the skin just above a mask.

    Args:
        canonical: the input.
        face: the mask, (z, y, x) on the same grid.

    Returns:
        None where too little skin is in view above the mask, as in a scan that ends below the brow
        or for a mask that reaches the vertex.
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
    lateral_mm = (np.arange(tissue.shape[2]) - middle) * mm
    shares: dict[str, float] = {}
    for name, sign in (("right", -1), ("left", 1)):
        beside = sign * lateral_mm
        columns = gone.any(axis=0) & (beside >= BESIDE_MM[0]) & (beside <= BESIDE_MM[1])
        share = _deep_share(canonical, patient, skin, (np.flatnonzero(columns), top[columns]))
        if share is not None:
            shares[name] = share
    if not shares:
        return None
    side = max(shares, key=lambda name: shares[name])
    return at_most(
        "ends_on_forehead",
        shares[side],
        MOST_DEEP,
        percent,
        f"just above the mask, on the patient's {side}, {{}} of the rays meet skin without bone "
        f"within {DEEP_MM:.0f} mm behind it, as at the level of the eyes",
    )


def _deep_share(
    canonical: Canonical,
    patient: BoolArray,
    skin: NDArray[np.intp],
    border: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> float | None:
    """Return the share of rays without bone soon behind the skin.

    Args:
        canonical: the input.
        patient: tissue on the same grid.
        skin: row of the first tissue, (z, x).
        border: columns, and the highest removed slice of each.

    Returns:
        None for too few rays.
    """
    mm = canonical.spacing_mm
    deep: list[bool] = []
    steep = _steep(skin)
    for above in range(round(ABOVE_MM[0] / mm), round(ABOVE_MM[1] / mm) + 1):
        for column, highest in zip(*border, strict=True):
            z = highest + above
            if z >= patient.shape[0] or steep[z, column] or not patient[z, skin[z, column], column]:
                continue
            along = slice(skin[z, column], skin[z, column] + round(RAY_LENGTH_MM / mm))
            bone = canonical.hu[z, along, column] > BONE_HU
            if bone.any() or canonical.valid[z, along, column].all():
                deep.append(bool(not bone.any() or bone.argmax() * mm > DEEP_MM))
    enough = 0.5 * (BESIDE_MM[1] - BESIDE_MM[0]) / mm * ((ABOVE_MM[1] - ABOVE_MM[0]) / mm + 1)
    return float(np.mean(deep)) if len(deep) >= enough else None


def _steep(skin: NDArray[np.intp]) -> BoolArray:
    """Return where the surface (z, x) recedes faster than `STEEPEST`.

    Its borders, where the slope is unknown, count as steep.
    """
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
