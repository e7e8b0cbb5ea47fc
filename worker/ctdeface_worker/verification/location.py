"""Describe the place of a fault in words."""

import numpy as np

from ctdeface_worker.imaging.canonical import Canonical, stored_index
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry

ONE_SIDE = 0.8
"""Share of the points that must be on one side of the middle for that side to be named."""
MOST_POINTS = 0.9
"""Share of the points that the named range of slices holds."""


def place_of_points(points_lps: FloatArray, geometry: Geometry, middle_mm: float) -> str:
    """Describe where points are: slices, height and side.

    Args:
        points_lps: LPS positions in mm, shape (points, 3).
        geometry: of the input; slices are numbered from 1 in the order of their positions.
        middle_mm: LPS x of the middle of the head.
    """
    if not len(points_lps):
        return "place unknown"
    ends = [(1 - MOST_POINTS) / 2, (1 + MOST_POINTS) / 2]
    slices = np.clip(np.rint(stored_index(geometry, points_lps)[:, 0]), 0, geometry.shape[0] - 1)
    first, last = np.quantile(slices, ends, method="nearest").astype(int) + 1
    low, high = np.quantile(points_lps[:, 2], ends)
    numbers = f"slice {first}" if first == last else f"slices {first} to {last}"
    height = f"z {low:.0f} mm" if round(low) == round(high) else f"z {low:.0f} to {high:.0f} mm"
    return f"{numbers} of {geometry.shape[0]}, {height}, {_side(points_lps[:, 0], middle_mm)}"


def place_of_stored(voxels: BoolArray, geometry: Geometry, middle_mm: float) -> str:
    """Describe the place of stored voxels (slice, row, column)."""
    k, row, column = np.nonzero(voxels)
    points = (
        geometry.slice_origins_lps[k]
        + row[:, None] * geometry.row_step_lps
        + column[:, None] * geometry.column_step_lps
    )
    return place_of_points(points, geometry, middle_mm)


def place_of_canonical(
    voxels: BoolArray, canonical: Canonical, geometry: Geometry, middle_mm: float
) -> str:
    """Describe the place of canonical voxels (z, y, x)."""
    index = np.stack(np.nonzero(voxels)[::-1], axis=-1)
    points = canonical.origin_lps + index * canonical.spacing_mm
    return place_of_points(points, geometry, middle_mm)


def _side(x_mm: FloatArray, middle_mm: float) -> str:
    left = float((x_mm > middle_mm).mean())
    if left >= ONE_SIDE:
        return "on the patient's left"
    return "on the patient's right" if left <= 1 - ONE_SIDE else "on both sides"
