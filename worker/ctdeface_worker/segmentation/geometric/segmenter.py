"""From a volume to a face mask by geometry: tissue, skull, orientation, rays, landmarks, mask."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from ctdeface_shared.options import Profile
from ctdeface_worker.canonical import Canonical, mask_to_stored, to_canonical
from ctdeface_worker.domain import FaceMask, Volume
from ctdeface_worker.segmentation.geometric import mask as masks
from ctdeface_worker.segmentation.geometric import rays
from ctdeface_worker.segmentation.geometric.landmarks import Skull, find_brow, find_chin, find_skull
from ctdeface_worker.segmentation.geometric.orientation import check_orientation
from ctdeface_worker.segmentation.geometric.tissue import Tissue, around_body, find_tissue, without_arms

GRID_MM = 2.0
LITTLE = 0.3
"""Of the section at the top of the cavity."""
COARSE_VOXELS = 2.0
"""Coarse skin is only gone when this many voxels of it are."""
LOOK_BELOW_CAVITY_MM = 60.0


class GeometricSegmenter:
    """Finds the face with rays from inside the skull; the same input gives the same mask on every machine."""

    name = "geometric"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the source of the rules."""
        sources = sorted(Path(__file__).parent.glob("*.py"))
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()

    def segment(self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False) -> FaceMask:
        """Return the face mask of the volume.

        Raises:
            FaceNotFound: no face is in view.
            UntrustedGeometry: the anatomy contradicts the orientation in the headers.
        """
        whole = to_canonical(volume, spacing_mm=GRID_MM)
        place = around_body(whole)
        canonical = _cropped(whole, place)
        tissue = find_tissue(canonical)
        skull = find_skull(tissue, GRID_MM)
        orientation = check_orientation(canonical, tissue, skull)
        tissue = without_arms(tissue, skull.axis.x, GRID_MM)
        face = _find_face(tissue, skull, _least_depth_mm(volume))
        removed = (masks.bulky if profile is Profile.BULKY else masks.soft_tissue)(canonical, tissue, face)
        if ears:
            removed |= masks.ears(canonical, tissue, face)
        full = masks.to_border(removed, place, whole.hu.shape, face, GRID_MM)
        return FaceMask(face=mask_to_stored(full, whole, volume.geometry), geometry=volume.geometry, orientation=orientation)


def _find_face(tissue: Tissue, skull: Skull, least_depth_mm: float) -> masks.Face:
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
        least_depth_mm=least_depth_mm,
        cut_above=_ends_with_cavity(tissue, skull),
    )


def _ends_with_cavity(tissue: Tissue, skull: Skull) -> bool:
    """Whether hardly anything of the head lies above the cavity: the field of view, or a mask on the scan, cut the head there."""
    areas = tissue.body.sum(axis=(1, 2))
    above = areas[skull.highest + 4 :]
    return bool(above.max(initial=0) < LITTLE * areas[skull.highest])


def _least_depth_mm(volume: Volume) -> float:
    """Skin of coarse voxels must go deeper to be gone."""
    _, row_mm, column_mm = volume.geometry.spacing_mm
    return max(masks.LEAST_DEPTH_MM, COARSE_VOXELS * max(row_mm, column_mm))


def _cropped(canonical: Canonical, place: tuple[slice, slice, slice]) -> Canonical:
    corner = np.array([part.start or 0 for part in reversed(place)]) * canonical.spacing_mm
    return Canonical(
        hu=canonical.hu[place].copy(),
        valid=canonical.valid[place].copy(),
        origin_lps=canonical.origin_lps + corner,
        spacing_mm=canonical.spacing_mm,
    )
