"""Find the head, its tissue, skull and face."""

from dataclasses import dataclass

import numpy as np

from ctdeface_worker.imaging.canonical import GRID_MM, Canonical, to_canonical
from ctdeface_worker.imaging.domain import FloatArray, Volume
from ctdeface_worker.segmentation.geometric import mask as masks
from ctdeface_worker.segmentation.geometric import rays
from ctdeface_worker.segmentation.geometric.landmarks import Skull, find_brow, find_chin, find_skull
from ctdeface_worker.segmentation.geometric.orientation import check_orientation
from ctdeface_worker.segmentation.geometric.tissue import (
    Tissue,
    around_body,
    find_tissue,
    without_arms,
)

LITTLE = 0.3
"""Share of the section at the top of the cavity below which a section is a remainder."""
COARSE_VOXELS = 2.0
"""Voxels of coarse skin that must be removed for the skin to be gone."""
BARE_VOXELS = 1.5
"""Voxels to be removed even where bone comes next; fewer still show the old skin."""
COARSE_MM = 3.9
"""Smallest edge of a coarse voxel: 4 mm, less rounding.

Coarse voxels are mixtures, in which bone near the skin is as gray as skin.
"""
YAW_BELOW_CAVITY_MM = 60.0
FACE_BELOW_CAVITY_MM = 180.0
FACE_ABOVE_CAVITY_MM = 30.0
FACE_BESIDE_CAVITY_MM = 50.0
FACE_BEFORE_SKULL_MM = 90.0
"""Distance before the bone around the cavity; a chest may reach farther forward than a nose."""
FACE_BEHIND_AXIS_MM = 50.0
"""Distance behind the axis, for heads that are turned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadAnatomy:
    """A head found in a scan.

    Attributes:
        whole: the scan on the canonical grid.
        box: the part of the grid around the body; the other attributes refer to it.
        canonical: the scan in that part.
        tissue: body, bone and cavity of the head, without arms beside it.
        skull: position of the skull.
        orientation: "verified" or "not verifiable".
        least_depth_mm: smallest depth to which facial skin is removed, unless bone comes first.
        bare_depth_mm: smallest depth even then.
    """

    whole: Canonical
    box: masks.Box
    canonical: Canonical
    tissue: Tissue
    skull: Skull
    orientation: str
    least_depth_mm: float
    bare_depth_mm: float


def find_head(volume: Volume) -> HeadAnatomy:
    """Find the head in a scan.

    Raises:
        FaceNotFound: no skull is in view.
        UntrustedGeometry: the anatomy contradicts the orientation in the headers.
    """
    pixel_mm = max(volume.geometry.spacing_mm[1:])
    least_depth_mm = max(masks.LEAST_DEPTH_MM, COARSE_VOXELS * pixel_mm)
    whole = to_canonical(volume, spacing_mm=GRID_MM)
    box = around_body(whole)
    canonical = _cropped(whole, box)
    tissue = find_tissue(canonical)
    skull = find_skull(tissue, int(np.flatnonzero(canonical.valid.any(axis=(0, 2)))[-1]), GRID_MM)
    orientation = check_orientation(canonical, tissue, skull)
    return HeadAnatomy(
        whole=whole,
        box=box,
        canonical=canonical,
        tissue=without_arms(tissue, skull.axis.x, GRID_MM),
        skull=skull,
        orientation=orientation,
        least_depth_mm=least_depth_mm,
        bare_depth_mm=BARE_VOXELS * pixel_mm
        if max(volume.geometry.spacing_mm) < COARSE_MM
        else least_depth_mm,
    )


def face_bounds_lps(head: HeadAnatomy) -> tuple[FloatArray, FloatArray]:
    """Return two LPS corners in mm of a box around the face.

    A network does not need to examine anything outside.
    """
    count = head.canonical.hu.shape
    axis, half = head.skull.axis, head.skull.half_width + FACE_BESIDE_CAVITY_MM / GRID_MM
    low = [
        axis.x - half,
        head.skull.front - FACE_BEFORE_SKULL_MM / GRID_MM,
        head.skull.lowest - FACE_BELOW_CAVITY_MM / GRID_MM,
    ]
    high = [
        axis.x + half,
        axis.y + FACE_BEHIND_AXIS_MM / GRID_MM,
        head.skull.highest + FACE_ABOVE_CAVITY_MM / GRID_MM,
    ]
    last = np.array([count[2] - 1, count[1] - 1, count[0] - 1], dtype=np.float64)
    corners = [
        np.clip(np.array(corner), 0, last) * GRID_MM + head.canonical.origin_lps
        for corner in (low, high)
    ]
    return corners[0], corners[1]


def find_face(head: HeadAnatomy) -> masks.Face:
    """Find where the face of a head begins and ends.

    Raises:
        FaceNotFound: no orbit is in view, or the skull has no soft tissue on it.
    """
    tissue, skull = head.tissue, head.skull
    cylinder = rays.cast_rays(tissue, skull.axis, GRID_MM)
    levels = slice(max(skull.lowest - round(YAW_BELOW_CAVITY_MM / GRID_MM), 0), skull.highest + 1)
    yaw = rays.yaw_degrees(cylinder, levels)
    brow = find_brow(cylinder, skull, yaw, GRID_MM)
    chin = find_chin(tissue, skull.axis, brow, GRID_MM)
    return masks.Face(
        skull=skull,
        cylinder=cylinder,
        yaw_degrees=yaw,
        half_width_mm=skull.half_width * GRID_MM + masks.CHEEK_BESIDE_CAVITY_MM,
        brow=brow,
        chin=chin,
        least_depth_mm=head.least_depth_mm,
        cut_above=_ends_with_cavity(tissue, skull),
    )


def _ends_with_cavity(tissue: Tissue, skull: Skull) -> bool:
    """Return whether the head ends with the cavity.

    There the field of view, or a mask on the scan, cut the head.
    """
    areas = tissue.body.sum(axis=(1, 2))
    above = areas[skull.highest + 4 :]
    return bool(above.max(initial=0) < LITTLE * areas[skull.highest])


def _cropped(canonical: Canonical, box: tuple[slice, slice, slice]) -> Canonical:
    corner = np.array([part.start or 0 for part in reversed(box)]) * canonical.spacing_mm
    return Canonical(
        hu=canonical.hu[box].copy(),
        valid=canonical.valid[box].copy(),
        origin_lps=canonical.origin_lps + corner,
        spacing_mm=canonical.spacing_mm,
    )
