"""Horizontal rays from a vertical axis inside the skull: a cylinder of distances to skin and bone."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, FloatArray
from ctdeface_worker.segmentation.geometric.tissue import Tissue

STEP_MM = 1.0
LONGEST_MM = 200.0
HALF_SECTOR_DEGREES = 118
"""Rays are cast this far to either side of straight ahead; the face takes 80, the rest is for heads that are turned, and ears."""
SHARED_SECTOR_DEGREES = 70
LARGEST_YAW_DEGREES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The vertical axis that rays start from, in voxels (y, x)."""

    y: float
    x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cylinder:
    """Distances from the axis in mm, index (z, angle); angles in whole degrees from the left of the patient's front to its right.

    Attributes:
        axis: where the rays start.
        degrees: angle of each column, 0 = anterior, positive to the patient's left.
        skin_mm: to the outermost body voxel, nan where there is none.
        bone_mm: to the outermost bone voxel, nan where there is none.
    """

    axis: Axis
    degrees: FloatArray
    skin_mm: FloatArray
    bone_mm: FloatArray

    @property
    def depth_mm(self) -> FloatArray:
        """How deep the outermost bone lies below the skin."""
        return self.skin_mm - self.bone_mm


def cast(tissue: Tissue, axis: Axis, spacing_mm: float) -> Cylinder:
    """Cast rays in every slice."""
    degrees = np.arange(-HALF_SECTOR_DEGREES, HALF_SECTOR_DEGREES + 1, dtype=np.float64)
    r = np.arange(0.0, LONGEST_MM, STEP_MM)
    radians = np.deg2rad(degrees)[:, None]
    y = np.rint(axis.y - np.cos(radians) * r / spacing_mm).astype(int)
    x = np.rint(axis.x + np.sin(radians) * r / spacing_mm).astype(int)
    inside = (y >= 0) & (y < tissue.body.shape[1]) & (x >= 0) & (x < tissue.body.shape[2])
    y, x = y.clip(0, tissue.body.shape[1] - 1), x.clip(0, tissue.body.shape[2] - 1)
    return Cylinder(
        axis=axis,
        degrees=degrees,
        skin_mm=_outermost(tissue.body[:, y, x] & inside, r),
        bone_mm=_outermost(tissue.bone[:, y, x] & inside, r),
    )


def yaw_degrees(cylinder: Cylinder, rows: slice) -> int:
    """Direction the face looks to: the one about which skin and bone are most alike to the left and to the right."""
    middle, reach = HALF_SECTOR_DEGREES, SHARED_SECTOR_DEGREES
    fields = [filled(field[rows]) for field in (cylinder.skin_mm, cylinder.bone_mm)]
    turns = range(-LARGEST_YAW_DEGREES, LARGEST_YAW_DEGREES + 1)

    def unlike(turn: int) -> float:
        left = slice(middle + turn + 1, middle + turn + reach + 1)
        right = slice(middle + turn - reach, middle + turn)
        return sum(
            float(np.median(np.abs(field[:, left] - field[:, right][:, ::-1]), axis=1).mean())
            for field in fields
        )

    return min(turns, key=lambda turn: unlike(turn) + 0.02 * abs(turn))


def directions(
    shape: tuple[int, int], axis: Axis, spacing_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Distance in mm and angle in degrees of every voxel (y, x) of a slice from the axis."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - axis.y, x - axis.x) * spacing_mm, np.rad2deg(
        np.arctan2(x - axis.x, axis.y - y)
    )


def _outermost(hit: BoolArray, r: FloatArray) -> FloatArray:
    last = hit.shape[-1] - 1 - hit[..., ::-1].argmax(axis=-1)
    return np.where(hit.any(axis=-1), r[last], np.nan)


def filled(field: FloatArray) -> FloatArray:
    """Replace missing distances by the nearest ones."""
    missing = np.isnan(field)
    if missing.all():
        return np.zeros_like(field)
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.asarray(field[tuple(nearest)])
