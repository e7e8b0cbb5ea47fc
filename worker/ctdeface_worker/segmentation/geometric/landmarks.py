"""Find axis, brow and chin from skull and skin.

Slice numbers rise to superior.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_shared.errors import FaceNotFound
from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.domain import FloatArray
from ctdeface_worker.segmentation.geometric.rays import Axis, Cylinder
from ctdeface_worker.segmentation.geometric.tissue import Tissue

SMALLEST_CAVITY_ML = 40.0
NEAR_CAVITY_MM = 16.0
"""Largest distance of the skull from the cavity; couch and arms are farther away."""
WHOLE_SKULL_MM = 150.0
"""The field of view cuts a shorter skull."""
AXIS_BEHIND_FRONT = 0.52
AXIS_BEHIND_FRONT_MM, AXIS_BEFORE_REAR_MM = 94.0, 86.0
"""Place of the axis in a skull that is cut behind, and in one that is cut in front."""
LATERAL_MM = (20.0, 42.0)
"""Lateral range in which depth is measured: beside the nose, before the temples."""
WIDEST_ANGLE_DEGREES = 50.0
ORBIT_DEPTH_MM = 14.0
"""Depth of bone between that of the frontal bone and that of the bone behind the eye."""
ORBIT_HEIGHT_MM = 16.0
STEEPEST = 1.2
"""Largest slope of the skin (mm per mm).

At the vertex it is steeper, and the depth along a horizontal ray means nothing.
"""
LOWEST_BROW_BELOW_CAVITY_MM = 60.0
LOWEST_BROW_BELOW_TOP_MM = 130.0
"""Lowest brow below the top of the cavity, of which only the upper part may be found."""
THINNEST_SKIN_MM = 2.0
LARGEST_FACE_MM = 170.0
OPEN_MOUTH_MM = 40.0
JAW_HALF_WIDTH_MM = 24.0
JAW_BEFORE_AXIS_MM = 30.0
JAW_CM2 = 0.2
JAW_BELOW_SKIN_MM = 30.0
"""Largest depth of the jaw below the skin; the spine in a neck bent back is deeper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skull:
    """Position of the skull around the cavity.

    Attributes:
        axis: start of the rays, in voxels.
        half_width: of the cavity, in voxels.
        lowest: lowest slice with cavity.
        highest: highest slice with cavity.
        front: most anterior row of the skull.
        rear: most posterior row of the skull.
    """

    axis: Axis
    half_width: float
    lowest: int
    highest: int
    front: int
    rear: int


def find_skull(tissue: Tissue, last_row: int, spacing_mm: float) -> Skull:
    """Find the skull by its cavity, and its axis.

    Args:
        tissue: of the head.
        last_row: last row of the field of view, behind.
        spacing_mm: edge of a voxel.

    Raises:
        FaceNotFound: no skull is in view.
    """
    milliliters = float(tissue.cavity.sum()) * spacing_mm**3 / 1000
    if milliliters < SMALLEST_CAVITY_ML:
        raise FaceNotFound(
            f"no skull is in view: bone encloses {milliliters:.0f} ml; at least "
            f"{SMALLEST_CAVITY_ML:.0f} ml of the intracranial cavity are required. "
            "Check that the series shows a head"
        )
    slices = np.flatnonzero(tissue.cavity.any(axis=(1, 2)))
    columns = np.flatnonzero(tissue.cavity.any(axis=(0, 1)))
    near = morphology.dilated(
        np.asarray(tissue.cavity.any(axis=0, keepdims=True)), round(NEAR_CAVITY_MM / spacing_mm)
    )[0]
    rows = np.flatnonzero((tissue.bone[slices[0] : slices[-1] + 1] & near).any(axis=(0, 2)))
    front, rear = int(rows[0]), int(rows[-1])
    axis = Axis(
        y=_axis_row(front, rear, last_row, spacing_mm), x=float(columns[0] + columns[-1]) / 2
    )
    half_width = float(columns[-1] - columns[0] + 1) / 2
    return Skull(
        axis=axis,
        half_width=half_width,
        lowest=int(slices[0]),
        highest=int(slices[-1]),
        front=front,
        rear=rear,
    )


def _axis_row(front: int, rear: int, last_row: int, spacing_mm: float) -> float:
    """Return the row of the skull's axis.

    The field of view may have cut either end.
    """
    if (rear - front) * spacing_mm >= WHOLE_SKULL_MM:
        return front + AXIS_BEHIND_FRONT * (rear - front)
    if rear >= last_row - 1:
        return min(front + AXIS_BEHIND_FRONT_MM / spacing_mm, float(rear))
    return max(rear - AXIS_BEFORE_REAR_MM / spacing_mm, 1.0)


def find_brow(cylinder: Cylinder, skull: Skull, yaw_degrees: float, spacing_mm: float) -> int:
    """Return the slice of the brow.

    It is the highest slice in which bone is as deep below the skin as in the orbits.

    Raises:
        FaceNotFound: no orbit is in view, or the bone has no soft tissue on it.
    """
    depth, skin = _profiles(cylinder, yaw_degrees)
    known = np.isfinite(skin)
    measured = depth[np.isfinite(depth)]
    if not known.any() or (measured.size and np.median(measured) < THINNEST_SKIN_MM):
        raise FaceNotFound(
            "the skull in view has no soft tissue on it; "
            f"at least {THINNEST_SKIN_MM:.0f} mm are required. "
            "A specimen without skin shows no face: withhold the series"
        )
    numbers = np.arange(skin.size)
    smooth = ndimage.gaussian_filter1d(np.interp(numbers, numbers[known], skin[known]), 3)
    slope = np.gradient(smooth) / spacing_mm
    deep = known & ~(
        depth / np.sqrt(1 + slope**2) <= ORBIT_DEPTH_MM
    )  # no bone at all counts as deep
    height = round(ORBIT_HEIGHT_MM / spacing_mm)
    below = min(
        skull.lowest - LOWEST_BROW_BELOW_CAVITY_MM / spacing_mm,
        skull.highest - LOWEST_BROW_BELOW_TOP_MM / spacing_mm,
    )
    lowest = max(round(below), height - 1)
    for z in range(skull.highest, lowest - 1, -1):
        if deep[z] and slope[z] >= -STEEPEST and deep[z - height + 1 : z + 1].mean() >= 0.75:
            return z
    raise FaceNotFound(
        f"no orbit is in view; bone at least {ORBIT_DEPTH_MM:.0f} mm behind the skin over "
        f"{ORBIT_HEIGHT_MM:.0f} mm of height is required to find the face. "
        "Look at the series: it may show no face"
    )


def find_chin(tissue: Tissue, axis: Axis, brow: int, spacing_mm: float) -> int | None:
    """Return the lowest slice of a jaw in view.

    An open mouth does not end the search.
    """
    half = JAW_HALF_WIDTH_MM / spacing_mm
    front = max(round(axis.y - JAW_BEFORE_AXIS_MM / spacing_mm), 1)
    part = (
        slice(0, brow + 1),
        slice(0, front),
        slice(max(round(axis.x - half), 0), round(axis.x + half) + 1),
    )
    body = tissue.body[part].any(axis=2)
    depth = np.arange(front) - body.argmax(axis=1)[:, None]
    cm2 = (
        (tissue.bone[part].sum(axis=2) * (depth <= JAW_BELOW_SKIN_MM / spacing_mm)).sum(axis=1)
        * spacing_mm**2
        / 100
    )
    found = [
        z for z in np.flatnonzero(cm2 >= JAW_CM2)[::-1] if (brow - z) * spacing_mm < LARGEST_FACE_MM
    ]
    lowest: int | None = None
    for z in found:
        if lowest is not None and (lowest - z) * spacing_mm > OPEN_MOUTH_MM:
            break
        lowest = int(z)
    return lowest


def _profiles(cylinder: Cylinder, yaw_degrees: float) -> tuple[FloatArray, FloatArray]:
    """Return depth of bone and distance of skin per slice, in mm.

    The depth is measured below the skin beside the nose, as the mean of both sides. The distance is
    measured straight ahead.
    """
    turned = cylinder.degrees - yaw_degrees
    lateral = cylinder.skin_mm * np.abs(np.sin(np.deg2rad(turned)))
    beside = (
        (lateral > LATERAL_MM[0])
        & (lateral < LATERAL_MM[1])
        & (np.abs(turned) < WIDEST_ANGLE_DEGREES)
    )
    # numpy warns of slices without skin or bone, which are nan on purpose
    with warnings.catch_warnings(action="ignore"):
        sides = [
            np.nanmedian(np.where(beside & (side * turned > 0), cylinder.depth_mm, np.nan), axis=1)
            for side in (-1, 1)
        ]
        ahead = np.nanmax(np.where(np.abs(turned) < 12, cylinder.skin_mm, np.nan), axis=1)
        return np.nanmean(np.stack(sides), axis=0), ahead
