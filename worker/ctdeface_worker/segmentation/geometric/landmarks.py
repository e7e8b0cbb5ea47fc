"""Where the face begins and ends: axis, brow and chin, found from skull and skin (slice numbers count to superior)."""

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
"""Only bone this near to the cavity is skull: a couch or an arm is not."""
WHOLE_SKULL_MM = 150.0
"""A shorter skull is cut by the field of view."""
AXIS_BEHIND_FRONT = 0.52
AXIS_BEHIND_FRONT_MM, AXIS_BEFORE_REAR_MM = 94.0, 86.0
"""Of a skull that is cut behind, and of one that is cut in front."""
LATERAL_MM = (20.0, 42.0)
"""Where the depth below the brow is looked at: beside the nose, before the temples."""
WIDEST_LOOK_DEGREES = 50.0
ORBIT_DEPTH_MM = 14.0
"""Skin lies nearer to the frontal bone than this, and farther from the bone behind the eye."""
ORBIT_HEIGHT_MM = 16.0
STEEPEST = 1.2
"""Where the skin recedes faster than this (mm per mm), at the vertex, depth along a horizontal ray says nothing."""
LOWEST_BROW_BELOW_CAVITY_MM = 60.0
LOWEST_BROW_BELOW_TOP_MM = 130.0
"""Of the cavity, of which no more than the uppermost part may have been found."""
THINNEST_SKIN_MM = 2.0
LARGEST_FACE_MM = 170.0
OPEN_MOUTH_MM = 40.0
JAW_HALF_WIDTH_MM = 24.0
JAW_BEFORE_AXIS_MM = 30.0
JAW_CM2 = 0.2
JAW_BELOW_SKIN_MM = 30.0
"""The spine, which comes forward where the neck is bent back, lies deeper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skull:
    """The cavity's place.

    Attributes:
        axis: where rays start, in voxels.
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
    """Find the skull by its cavity and put the axis into it.

    Args:
        tissue: of the head.
        last_row: where the field of view ends behind.
        spacing_mm: edge of a voxel.

    Raises:
        FaceNotFound: there is no skull in view.
    """
    milliliters = float(tissue.cavity.sum()) * spacing_mm**3 / 1000
    if milliliters < SMALLEST_CAVITY_ML:
        raise FaceNotFound(f"no skull is in view: only {milliliters:.0f} ml are enclosed by bone")
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
    """Return where the axis lies between front and rear of the skull, of which the field of view may have cut either."""
    if (rear - front) * spacing_mm >= WHOLE_SKULL_MM:
        return front + AXIS_BEHIND_FRONT * (rear - front)
    if rear >= last_row - 1:
        return min(front + AXIS_BEHIND_FRONT_MM / spacing_mm, float(rear))
    return max(rear - AXIS_BEFORE_REAR_MM / spacing_mm, 1.0)


def find_brow(cylinder: Cylinder, skull: Skull, yaw_degrees: float, spacing_mm: float) -> int:
    """Return the highest slice in which the bone lies as deep below the skin as it does in the orbits.

    Raises:
        FaceNotFound: no orbit is in view, or the bone has no soft tissue on it.
    """
    depth, skin = _profiles(cylinder, yaw_degrees)
    known = np.isfinite(skin)
    measured = depth[np.isfinite(depth)]
    if not known.any() or (measured.size and np.median(measured) < THINNEST_SKIN_MM):
        raise FaceNotFound("the skull in view has no soft tissue on it")
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
    raise FaceNotFound("no orbit is in view, so there is no face to remove")


def find_chin(tissue: Tissue, axis: Axis, brow: int, spacing_mm: float) -> int | None:
    """Return the lowest slice of the jaw, None when no jaw is in view; an open mouth does not end the search."""
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
    """Per slice: depth of bone below the skin beside the nose, mean of both sides, and how far the skin is straight ahead."""
    turned = cylinder.degrees - yaw_degrees
    lateral = cylinder.skin_mm * np.abs(np.sin(np.deg2rad(turned)))
    beside = (
        (lateral > LATERAL_MM[0])
        & (lateral < LATERAL_MM[1])
        & (np.abs(turned) < WIDEST_LOOK_DEGREES)
    )
    with warnings.catch_warnings(
        action="ignore"
    ):  # slices without skin or bone are nan, as they should be
        sides = [
            np.nanmedian(np.where(beside & (side * turned > 0), cylinder.depth_mm, np.nan), axis=1)
            for side in (-1, 1)
        ]
        ahead = np.nanmax(np.where(np.abs(turned) < 12, cylinder.skin_mm, np.nan), axis=1)
        return np.nanmean(np.stack(sides), axis=0), ahead
