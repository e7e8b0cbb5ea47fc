"""Deliberately wrong face masks, made from a right one."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical, mask_to_stored, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, Volume
from tests.support.measure.covers import (
    TISSUE_HU,
    foremost_lps,
    front_of,
    middle,
    points_lps,
    steps_lps,
)

SHIFT_MM = 15.0
THIN_MM = 1.0
LEFT_MM, ALL_LEFT_MM = 5.0, 10.0
"""Behind the skin; in voxels, the nearest whole number."""
CHIN_MM = 40.0
"""Below the chin and the chin itself."""
SIDES = {
    "right": (-1, 0, 0),
    "left": (1, 0, 0),
    "front": (0, -1, 0),
    "back": (0, 1, 0),
    "up": (0, 0, 1),
    "down": (0, 0, -1),
}
"""LPS directions (x, y, z)."""


def wrong_masks(volume: Volume, face: BoolArray) -> Iterator[tuple[str, BoolArray]]:
    """Yield every wrong mask of a volume and its right mask."""
    axes = _stored_axes(volume.geometry)
    for side, direction in SIDES.items():
        yield (
            f"shifted {SHIFT_MM:.0f} mm {side}",
            shifted(face, volume.geometry, SHIFT_MM * np.array(direction, dtype=np.float64)),
        )
    yield "mirrored left to right", np.flip(face, axes[0])
    yield "mirrored front to back", np.flip(face, axes[1])
    yield "mirrored top to bottom", np.flip(face, axes[2])
    for name, direction, share in (
        ("right half only", (-1, 0, 0), 0.5),
        ("left half only", (1, 0, 0), 0.5),
        ("upper half only", (0, 0, 1), 0.5),
        ("lower half only", (0, 0, -1), 0.5),
    ):
        yield name, _part(volume, face, np.array(direction, dtype=np.float64), share)
    yield "chin missed", _without_lowest(volume, face, CHIN_MM)
    yield f"{THIN_MM:.0f} mm thin", face & (_depth_mm(volume) <= THIN_MM)
    yield (
        f"middle of the face left {LEFT_MM:.0f} mm deep",
        face & ~(middle(volume, face) & _left(volume, LEFT_MM)),
    )
    yield f"all of it left {ALL_LEFT_MM:.0f} mm deep", face & ~_left(volume, ALL_LEFT_MM)
    yield "empty", np.zeros_like(face)
    yield "everything", np.ones_like(face)


def moved_to(volume: Volume, face: BoolArray, other: Volume, others: BoolArray) -> BoolArray:
    """Return another patient's mask, aligned by the tips of both noses."""
    foreign = to_canonical(
        Volume(hu=others.astype(np.float32), valid=other.valid, geometry=other.geometry)
    )
    moved = Canonical(
        hu=foreign.hu,
        valid=foreign.valid,
        origin_lps=foreign.origin_lps + foremost_lps(volume, face) - foremost_lps(other, others),
        spacing_mm=foreign.spacing_mm,
    )
    return mask_to_stored(foreign.hu >= 0.5, moved, volume.geometry)


def shifted(face: BoolArray, geometry: Geometry, by_mm: FloatArray) -> BoolArray:
    """Move a mask by whole voxels; what leaves the volume is gone."""
    steps = steps_lps(geometry)
    voxels = [round(float(by_mm @ step / (step @ step))) for step in steps]
    out: BoolArray = np.zeros_like(face)
    to = tuple(
        slice(max(n, 0), size + min(n, 0)) for n, size in zip(voxels, face.shape, strict=True)
    )
    come_from = tuple(
        slice(max(-n, 0), size + min(-n, 0)) for n, size in zip(voxels, face.shape, strict=True)
    )
    out[to] = face[come_from]
    return out


def coarser(volume: Volume, part: tuple[slice, slice, slice]) -> Volume:
    """Keep some slices, rows and columns, such as every other one, which makes trials cheap."""
    g = volume.geometry
    first, by = [each.start or 0 for each in part], [each.step or 1 for each in part]
    hu = volume.hu[part].copy()
    return Volume(
        hu=hu,
        valid=volume.valid[part].copy(),
        geometry=Geometry(
            shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
            row_step_lps=g.row_step_lps * by[1],
            column_step_lps=g.column_step_lps * by[2],
            slice_origins_lps=g.slice_origins_lps[part[0]]
            + first[1] * g.row_step_lps
            + first[2] * g.column_step_lps,
            frame_of_reference_uid=g.frame_of_reference_uid,
        ),
    )


def _stored_axes(geometry: Geometry) -> tuple[int, int, int]:
    """Which stored axis runs along x, y and z."""
    along = [int(np.abs(step).argmax()) for step in steps_lps(geometry)]
    return along.index(0), along.index(1), along.index(2)


def _part(volume: Volume, face: BoolArray, direction: FloatArray, share: float) -> BoolArray:
    """Keep the part of a mask that lies farthest in a direction, by its share of the tissue."""
    tissue = face & (volume.hu > TISSUE_HU)
    along = points_lps(volume, tissue) @ direction
    out: BoolArray = np.zeros_like(face)
    out[face] = points_lps(volume, face) @ direction >= np.quantile(along, 1 - share)
    return out


def _left(volume: Volume, behind_mm: float) -> BoolArray:
    front = front_of(volume)
    return front.behind_skin(round(behind_mm / volume.geometry.spacing_mm[front.axis]))


def _without_lowest(volume: Volume, face: BoolArray, mm: float) -> BoolArray:
    """Remove the lowest part of the mask."""
    lowest = points_lps(volume, face & (volume.hu > TISSUE_HU))[:, 2].min()
    out: BoolArray = np.zeros_like(face)
    out[face] = points_lps(volume, face)[:, 2] >= lowest + mm
    return out


def _depth_mm(volume: Volume) -> FloatArray:
    """How deep each voxel's near side lies in tissue."""
    spacing = volume.geometry.spacing_mm
    return np.asarray(
        ndimage.distance_transform_edt(volume.hu > TISSUE_HU, sampling=spacing) - min(spacing) / 2,
        dtype=np.float64,
    )
