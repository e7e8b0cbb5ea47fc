"""Read stored voxels at positions in patient space, by nearest neighbor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry

IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voxels:
    """Stored voxels under some positions.

    Attributes:
        index: (3, ...) slice, row and column, clipped into the volume.
        inside: whether the position lies in the volume at all.
    """

    index: tuple[IndexArray, IndexArray, IndexArray]
    inside: BoolArray


def voxels_at(geometry: Geometry, points_lps: FloatArray) -> Voxels:
    """Find the voxel that holds each position; uneven and drifting slices (gantry tilt) included.

    Args:
        geometry: where the voxels lie.
        points_lps: (..., 3) mm.
    """
    positions, normal = geometry.slice_positions_mm, geometry.normal_lps
    n = len(positions)
    half = np.diff(positions)[[0, -1]] / 2 if n > 1 else np.array([0.5, 0.5])
    along = points_lps @ normal
    middles = (positions[1:] + positions[:-1]) / 2
    k = np.searchsorted(middles, along)
    inside = (along >= positions[0] - half[0]) & (along <= positions[-1] + half[1])
    offset = points_lps - geometry.slice_origins_lps[k]
    index = [k]
    for axis, step in ((1, geometry.row_step_lps), (2, geometry.column_step_lps)):
        exact = offset @ (step / (step @ step))
        inside &= (exact >= -0.5) & (exact <= geometry.shape[axis] - 0.5)
        index.append(np.clip(np.floor(exact + 0.5).astype(np.intp), 0, geometry.shape[axis] - 1))
    return Voxels(index=(index[0], index[1], index[2]), inside=np.asarray(inside, dtype=bool))


def chord_mm(geometry: Geometry, direction: FloatArray) -> float:
    """Length of a central ray inside one voxel along a unit direction."""
    slice_mm, row_mm, column_mm = geometry.spacing_mm
    axes = (
        geometry.normal_lps / slice_mm,
        geometry.row_step_lps / row_mm**2,
        geometry.column_step_lps / column_mm**2,
    )
    return float(1 / max(abs(axis @ direction) for axis in axes))


def box_lps(geometry: Geometry) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest LPS corner of the centers of all voxels."""
    rows, columns = (n - 1 for n in geometry.shape[1:])
    in_plane = np.array(
        [
            i * rows * geometry.row_step_lps + j * columns * geometry.column_step_lps
            for i in (0, 1)
            for j in (0, 1)
        ]
    )
    corners = (geometry.slice_origins_lps[:, None, :] + in_plane[None]).reshape(-1, 3)
    return corners.min(axis=0), corners.max(axis=0)
