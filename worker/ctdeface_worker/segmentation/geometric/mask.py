"""Make the face mask on the canonical grid.

It holds everything outside the outermost bone, from mid-forehead to below the chin.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray
from ctdeface_worker.imaging.hounsfield import BONE_HU, SKIN_HU
from ctdeface_worker.segmentation.geometric.landmarks import Skull
from ctdeface_worker.segmentation.geometric.rays import (
    HALF_SECTOR_DEGREES,
    Axis,
    Cylinder,
    cast_rays,
    fill_missing,
    polar_coordinates,
)
from ctdeface_worker.segmentation.geometric.tissue import Tissue

Box: TypeAlias = tuple[slice, slice, slice]

HALF_FACE_DEGREES = 80.0
ABOVE_BROW_MM = 30.0
BELOW_BROW_MM = 124.0
BELOW_CHIN_MM = 16.0
ABOVE_CHIN_MM = 140.0
"""Height of a whole face; keeps the top high enough if the brow is found too low."""
DEEPEST_BONE_MM = 24.0
"""Largest depth of bone that supports the skin; behind eye, open mouth and neck it is deeper."""
SHELL_MM = 16.0
THINNEST_SHELL_MM = 10.0
INTO_BONE_MM = 1.0
"""Removes the film of partial volume on the bone."""
LEAST_DEPTH_MM = 5.0
"""Skin is removed to this depth even where bone or metal is at the surface."""
CHEEK_BESIDE_CAVITY_MM = 40.0
"""Largest distance of a cheek to the side of the cavity."""
GUARD_MM = 4.0
"""Margin around the cavity in which nothing is removed."""
FRONT_HALF_WIDTH_MM = 75.0
MOST_TURNED_DEGREES = 45.0
"""Largest rotation of a head in a scanner."""
LEAST_TURN_DEGREES = 10.0
"""Smallest rotation to be followed; a mask shifted aside by 15 mm seems turned by less."""
CORE_HALF_WIDTH_MM = 47.0
CORE_ABOVE_BROW_MM = 20.0
"""The recognizable part: between the lateral orbital rims, up to the lower forehead."""
SAFE_DEPTH_MM = 36.0
"""Largest depth of facial soft tissue, also in a fat cheek."""
EAR_DEGREES = (60.0, 118.0)
EAR_HEIGHT_MM = 80.0
EAR_WIDTH_DEGREES = 45
"""A bulge on the side of the head that is lower and narrower than this is an ear."""
EAR_PROTRUDES_MM = 3.0
EAR_BESIDE_BODY_MM = 24.0
"""Thin ears are not part of the body mask, but are near it."""
EAR_SPAN_MM = (-75.0, 25.0)
"""Range of the ears relative to the height of the brow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """Landmarks and extent of a face.

    Attributes:
        skull: position of the skull.
        cylinder: distances to skin and bone.
        yaw_degrees: direction of the face, positive to the patient's left.
        half_width_mm: half the width of the face; arms and holders are farther aside.
        brow: slice of the brow.
        chin: slice of the chin, None if no jaw is in view.
        least_depth_mm: smallest depth to which skin is removed.
        cut_above: the head in view ends with the cavity; remains above it, as in a scan that was
            masked, count as face.
    """

    skull: Skull
    cylinder: Cylinder
    yaw_degrees: float
    half_width_mm: float
    brow: int
    chin: int | None
    least_depth_mm: float
    cut_above: bool = False


def turned_toward(face: Face, seen: BoolArray, spacing_mm: float) -> Face:
    """Return the face turned toward a network's mask.

    In a head that leans and turns, soft tissue shows its direction more reliably than the bones. A
    small difference is ignored, and so is a mask too far to the side.

    Args:
        face: found by the geometric rules.
        seen: facial tissue found by a network, (z, y, x) on the grid of `face`.
        spacing_mm: edge of a voxel.
    """
    _, degrees = polar_coordinates((seen.shape[1], seen.shape[2]), face.cylinder.axis, spacing_mm)
    thick, angle = np.count_nonzero(seen, axis=0), np.deg2rad(degrees)
    yaw = float(
        np.rad2deg(np.arctan2((thick * np.sin(angle)).sum(), (thick * np.cos(angle)).sum()))
    )
    follows = (
        seen.any()
        and abs(yaw) <= MOST_TURNED_DEGREES
        and abs(yaw - face.yaw_degrees) >= LEAST_TURN_DEGREES
    )
    return replace(face, yaw_degrees=yaw) if follows else face


def soft_tissue(canonical: Canonical, tissue: Tissue, face: Face) -> BoolArray:
    """Mask facial soft tissue and everything before it.

    Bone stays, unless skin would stay with it.
    """
    cut_mm = fill_missing(face.cylinder.skin_mm - _soft_depth(face))
    mask = _outside(tissue.body.shape, canonical.spacing_mm, face, cut_mm)
    skin_mm = fill_missing(face.cylinder.skin_mm)
    mask &= ~(
        tissue.bone
        & ~_outside(tissue.body.shape, canonical.spacing_mm, face, skin_mm - face.least_depth_mm)
    )
    return _seen_from_front(mask & ~guard(tissue, canonical.spacing_mm), canonical, tissue, face)


def ears(canonical: Canonical, tissue: Tissue, face: Face) -> BoolArray:
    """Mask what protrudes beside the head at the height of the face."""
    mm = canonical.spacing_mm
    near = (
        morphology.grown(tissue.body, round(EAR_BESIDE_BODY_MM / mm))
        & (canonical.hu > SKIN_HU)
        & canonical.valid
    )
    skin_mm = fill_missing(
        cast_rays(
            Tissue(body=near, bone=tissue.bone, cavity=tissue.cavity), face.cylinder.axis, mm
        ).skin_mm
    )
    head_mm = ndimage.grey_opening(
        skin_mm, size=(2 * round(EAR_HEIGHT_MM / mm / 2) + 1, EAR_WIDTH_DEGREES)
    )
    side = np.abs(face.cylinder.degrees - face.yaw_degrees)
    protrudes = (
        (skin_mm - head_mm > EAR_PROTRUDES_MM) & (side >= EAR_DEGREES[0]) & (side <= EAR_DEGREES[1])
    )
    cut_mm = np.where(ndimage.binary_dilation(protrudes, iterations=2), head_mm + 1, np.inf)
    r_mm, degrees = polar_coordinates(
        (tissue.body.shape[1], tissue.body.shape[2]), face.cylinder.axis, mm
    )
    column = np.clip(
        np.rint(degrees - face.cylinder.degrees[0]).astype(int), 0, face.cylinder.degrees.size - 1
    )
    low, high = (face.brow + round(span / mm) for span in EAR_SPAN_MM)
    mask = np.zeros_like(tissue.body)
    for z in range(max(low, 0), min(high, mask.shape[0])):
        mask[z] = (r_mm >= cut_mm[z][column]) & (np.abs(degrees) <= HALF_SECTOR_DEGREES)
    return mask & morphology.dilated(near, 1) & ~tissue.bone & ~guard(tissue, mm)


def extended_to_border(
    removed: BoolArray, box: Box, shape: tuple[int, ...], face: Face, spacing_mm: float
) -> BoolArray:
    """Extend a mask to the whole grid.

    Everything before the face is removed up to the border of the grid.

    Args:
        removed: mask of the part, which contains the whole body.
        box: the part.
        shape: of the whole grid.
        face: found in the part.
        spacing_mm: edge of a voxel.
    """
    start = [part.start or 0 for part in box]
    axis = Axis(y=face.cylinder.axis.y + start[1], x=face.cylinder.axis.x + start[2])
    r_mm, degrees = polar_coordinates((shape[1], shape[2]), axis, spacing_mm)
    full = np.zeros(shape, dtype=bool)
    full[face_slices(face, shape[0], spacing_mm)] = facial_sector(r_mm, degrees, face)
    full[box] = removed
    return full


def guard(tissue: Tissue, spacing_mm: float, margin_mm: float = GUARD_MM) -> BoolArray:
    """Return the cavity with a safety margin.

    Slices with open rings of bone are bridged.
    """
    bridged = tissue.cavity.copy()
    found = np.flatnonzero(bridged.any(axis=(1, 2)))
    for below, above in pairwise(found):
        bridged[below + 1 : above] |= tissue.cavity[below] & tissue.cavity[above]
    return morphology.grown(bridged, round(margin_mm / spacing_mm))


def safe_reach(tissue: Tissue, face: Face, spacing_mm: float) -> BoolArray:
    """Return where soft tissue may be removed.

    That is in the sector of the face, near the skin, outside bone and cavity.
    """
    skin_mm, shape = fill_missing(face.cylinder.skin_mm), tissue.body.shape
    near, at_skin = (
        _outside(shape, spacing_mm, face, skin_mm - depth, everywhere=True)
        for depth in (SAFE_DEPTH_MM, face.least_depth_mm)
    )
    return near & ~(tissue.bone & ~at_skin) & ~guard(tissue, spacing_mm)


def safe_zone(reach: BoolArray, face: Face, spacing_mm: float) -> BoolArray:
    """Return the reach in the slices of the face."""
    zone = np.zeros_like(reach)
    levels = face_slices(face, reach.shape[0], spacing_mm)
    zone[levels] = reach[levels]
    return zone


def middle_of_face(shape: tuple[int, ...], face: Face, spacing_mm: float) -> BoolArray:
    """Return the frontal rays (z, x) to the middle of the face.

    They reach from mid-forehead to the chin.
    """
    levels = face_slices(face, shape[0], spacing_mm)
    lowest = max(levels.start, face.chin) if face.chin is not None else levels.start
    middle = np.abs(np.arange(shape[2]) - face.cylinder.axis.x) * spacing_mm <= CORE_HALF_WIDTH_MM
    rays = np.zeros((shape[0], shape[2]), dtype=bool)
    rays[lowest : levels.stop] = middle
    return rays


def core_of_face(shape: tuple[int, ...], face: Face, spacing_mm: float) -> BoolArray:
    """Return the middle rays (z, x) up to the lower forehead.

    They belong to the face by any definition of it.
    """
    rays = middle_of_face(shape, face, spacing_mm)
    rays[round(face.brow + CORE_ABOVE_BROW_MM / spacing_mm) + 1 :] = False
    return rays


def face_slices(face: Face, slices: int, spacing_mm: float) -> slice:
    """Return the slices of the face in view.

    They reach from below the chin to mid-forehead.
    """
    top, bottom = face.brow + ABOVE_BROW_MM / spacing_mm, face.brow - BELOW_BROW_MM / spacing_mm
    if face.chin is not None:
        # nearer to the border the view cuts the jaw, and its lowest bone is not the chin
        if face.chin * spacing_mm >= BELOW_CHIN_MM:
            top = max(top, face.chin + ABOVE_CHIN_MM / spacing_mm)
        bottom = min(bottom, face.chin - BELOW_CHIN_MM / spacing_mm)
    if face.cut_above and face.skull.highest <= top:
        top = slices - 1
    return slice(max(int(bottom), 0), min(int(top), slices - 1) + 1)


def facial_sector(r_mm: FloatArray, degrees: FloatArray, face: Face) -> BoolArray:
    """Return the sector (y, x) of the face and before it."""
    turned = degrees - face.yaw_degrees
    beside = np.abs(r_mm * np.sin(np.deg2rad(turned)))
    return np.asarray((np.abs(turned) <= HALF_FACE_DEGREES) & (beside <= face.half_width_mm))


def _soft_depth(face: Face) -> FloatArray:
    """Return the depth of the cut per ray, in mm.

    It reaches to the bone, or is a shell where no bone supports the skin.
    """
    depth = face.cylinder.depth_mm
    has_bone = depth <= DEEPEST_BONE_MM
    wanted = np.where(has_bone, np.maximum(depth + INTO_BONE_MM, face.least_depth_mm), SHELL_MM)
    shell = np.clip(
        ndimage.median_filter(wanted, (5, 5)),
        max(THINNEST_SHELL_MM, face.least_depth_mm),
        DEEPEST_BONE_MM,
    )
    return np.where(has_bone, wanted, shell)


def _outside(
    shape: tuple[int, ...],
    spacing_mm: float,
    face: Face,
    cut_mm: FloatArray,
    *,
    everywhere: bool = False,
) -> BoolArray:
    """Mask the facial sector beyond a distance from the axis.

    It reaches up to the image border.

    `everywhere` includes all slices instead of those of the face.
    """
    r_mm, degrees = polar_coordinates((shape[1], shape[2]), face.cylinder.axis, spacing_mm)
    sector = facial_sector(r_mm, degrees, face)
    levels = slice(0, shape[0]) if everywhere else face_slices(face, shape[0], spacing_mm)
    column = np.clip(
        np.rint(degrees - face.cylinder.degrees[0]).astype(int), 0, face.cylinder.degrees.size - 1
    )
    mask = np.zeros(shape, dtype=bool)
    for z in range(levels.start, levels.stop):
        mask[z] = sector & (r_mm >= cut_mm[z][column])
    return mask


def _seen_from_front(
    mask: BoolArray, canonical: Canonical, tissue: Tissue, face: Face
) -> BoolArray:
    """Deepen the mask where frontal rays meet remaining skin.

    This happens at the corners of the mouth and in the nostrils.
    """
    mm = canonical.spacing_mm
    kept = (canonical.hu > SKIN_HU) & canonical.valid & ~mask
    skin, meets = tissue.body.argmax(axis=1), kept.argmax(axis=1)
    there = tissue.body.any(axis=1) & kept.any(axis=1)
    hu = np.take_along_axis(canonical.hu, meets[:, None, :], axis=1)[:, 0]
    shallow = there & ((meets - skin) * mm < face.least_depth_mm) & (hu <= BONE_HU + 20)
    columns = np.arange(mask.shape[2])
    shallow &= (np.abs(columns - face.cylinder.axis.x) * mm <= FRONT_HALF_WIDTH_MM) & (
        skin < face.cylinder.axis.y - 20 / mm
    )
    inside = np.zeros(mask.shape[0], dtype=bool)
    inside[face_slices(face, mask.shape[0], mm)] = True
    shallow &= inside[:, None]
    until = np.where(shallow, skin + np.ceil(face.least_depth_mm / mm), 0)
    deeper = np.arange(mask.shape[1])[None, :, None] < until[:, None, :]
    return np.asarray(mask | (deeper & ~guard(tissue, mm)), dtype=bool)
