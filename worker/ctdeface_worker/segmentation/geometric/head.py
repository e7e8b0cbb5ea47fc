"""What is found about a head before anything of it is masked: the grid, its tissue and skull, and where the face begins and ends."""

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
"""Of the section at the top of the cavity."""
COARSE_VOXELS = 2.0
"""Coarse skin is only gone when this many voxels of it are."""
BARE_VOXELS = 1.5
"""Fewer show the old skin, even where bone comes next."""
COARSE_MM = 3.9
"""Voxels of 4 mm along any axis, give or take rounding: mixtures, in which bone near the skin is as gray as skin."""
LOOK_BELOW_CAVITY_MM = 60.0
FACE_BELOW_CAVITY_MM = 180.0
FACE_ABOVE_CAVITY_MM = 30.0
FACE_BESIDE_CAVITY_MM = 50.0
FACE_BEFORE_SKULL_MM = 90.0
"""Before the bone around the cavity; a chest may reach farther forward than any nose."""
FACE_BEHIND_AXIS_MM = 50.0
"""For heads that are turned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A head that was found in a scan.

    Attributes:
        whole: the scan on the canonical grid.
        place: the part of it around the body, which all that follows refers to.
        canonical: that part.
        tissue: body, bone and cavity of the head, without arms beside it.
        skull: place of the cavity.
        orientation: "verified" or "not verifiable".
        least_depth_mm: every piece of facial skin loses at least this much, unless bone comes
            first.
        bare_depth_mm: so much even then.
    """

    whole: Canonical
    place: masks.Box
    canonical: Canonical
    tissue: Tissue
    skull: Skull
    orientation: str
    least_depth_mm: float
    bare_depth_mm: float


def find_head(volume: Volume) -> Head:
    """Find the head in a scan.

    Raises:
        FaceNotFound: no skull is in view.
        UntrustedGeometry: the anatomy contradicts the orientation in the headers.
    """
    pixel_mm = max(volume.geometry.spacing_mm[1:])
    least_depth_mm = max(masks.LEAST_DEPTH_MM, COARSE_VOXELS * pixel_mm)
    whole = to_canonical(volume, spacing_mm=GRID_MM)
    place = around_body(whole)
    canonical = _cropped(whole, place)
    tissue = find_tissue(canonical)
    skull = find_skull(tissue, int(np.flatnonzero(canonical.valid.any(axis=(0, 2)))[-1]), GRID_MM)
    orientation = check_orientation(canonical, tissue, skull)
    return Head(
        whole=whole,
        place=place,
        canonical=canonical,
        tissue=without_arms(tissue, skull.axis.x, GRID_MM),
        skull=skull,
        orientation=orientation,
        least_depth_mm=least_depth_mm,
        bare_depth_mm=BARE_VOXELS * pixel_mm
        if max(volume.geometry.spacing_mm) < COARSE_MM
        else least_depth_mm,
    )


def where_a_face_can_be(head: Head) -> tuple[FloatArray, FloatArray]:
    """Return lowest and highest LPS corner in mm of a generous box around the face; a network need not look elsewhere."""
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


def find_face(head: Head) -> masks.Face:
    """Find where the face of a head begins and ends.

    Raises:
        FaceNotFound: no orbit is in view, or the skull has no soft tissue on it.
    """
    tissue, skull = head.tissue, head.skull
    cylinder = rays.cast(tissue, skull.axis, GRID_MM)
    look = slice(max(skull.lowest - round(LOOK_BELOW_CAVITY_MM / GRID_MM), 0), skull.highest + 1)
    yaw = rays.yaw_degrees(cylinder, look)
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
    """Whether hardly anything of the head lies above the cavity: the field of view, or a mask on the scan, cut the head there."""
    areas = tissue.body.sum(axis=(1, 2))
    above = areas[skull.highest + 4 :]
    return bool(above.max(initial=0) < LITTLE * areas[skull.highest])


def _cropped(canonical: Canonical, place: tuple[slice, slice, slice]) -> Canonical:
    corner = np.array([part.start or 0 for part in reversed(place)]) * canonical.spacing_mm
    return Canonical(
        hu=canonical.hu[place].copy(),
        valid=canonical.valid[place].copy(),
        origin_lps=canonical.origin_lps + corner,
        spacing_mm=canonical.spacing_mm,
    )
