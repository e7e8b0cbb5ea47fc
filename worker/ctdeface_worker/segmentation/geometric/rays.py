"""Measure skin and bone along rays from inside the skull."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, FloatArray
from ctdeface_worker.segmentation.geometric.tissue import Tissue

STEP_MM = 1.0
LONGEST_MM = 200.0
HALF_SECTOR_DEGREES = 118
"""Half the sector of the rays; the face takes 80 degrees, ears and turned heads the rest."""
SHARED_SECTOR_DEGREES = 70
LARGEST_YAW_DEGREES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The vertical start axis of the rays, voxels (y, x)."""

    y: float
    x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cylinder:
    """Distances from the axis in mm, index (z, angle).

    Angles rise in whole degrees.

    Attributes:
        axis: start of the rays.
        degrees: angle of each column, 0 = anterior, positive to the patient's left.
        skin_mm: distance to the outermost body voxel, nan without one.
        bone_mm: distance to the outermost bone voxel, nan without one.
    """

    axis: Axis
    degrees: FloatArray
    skin_mm: FloatArray
    bone_mm: FloatArray

    @property
    def depth_mm(self) -> FloatArray:
        """Depth of the outermost bone below the skin."""
        return self.skin_mm - self.bone_mm


def cast_rays(tissue: Tissue, axis: Axis, spacing_mm: float) -> Cylinder:
    """Cast horizontal rays in every slice."""
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
    """Return the direction of the face.

    Skin and bone to the left and to the right of it are the most similar.
    """
    middle, reach = HALF_SECTOR_DEGREES, SHARED_SECTOR_DEGREES
    fields = [fill_missing(field[rows]) for field in (cylinder.skin_mm, cylinder.bone_mm)]
    turns = range(-LARGEST_YAW_DEGREES, LARGEST_YAW_DEGREES + 1)

    def asymmetry(turn: int) -> float:
        left = slice(middle + turn + 1, middle + turn + reach + 1)
        right = slice(middle + turn - reach, middle + turn)
        return sum(
            float(np.median(np.abs(field[:, left] - field[:, right][:, ::-1]), axis=1).mean())
            for field in fields
        )

    return min(turns, key=lambda turn: asymmetry(turn) + 0.02 * abs(turn))


def polar_coordinates(
    shape: tuple[int, int], axis: Axis, spacing_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Return the polar coordinates of every voxel (y, x) about an axis.

    These are the distance in mm and the angle in degrees.
    """
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - axis.y, x - axis.x) * spacing_mm, np.rad2deg(
        np.arctan2(x - axis.x, axis.y - y)
    )


def _outermost(hit: BoolArray, r: FloatArray) -> FloatArray:
    last = hit.shape[-1] - 1 - hit[..., ::-1].argmax(axis=-1)
    return np.where(hit.any(axis=-1), r[last], np.nan)


def fill_missing(field: FloatArray) -> FloatArray:
    """Replace missing distances by the nearest ones."""
    missing = np.isnan(field)
    if missing.all():
        return np.zeros_like(field)
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.asarray(field[tuple(nearest)])
