"""The face mask on the canonical grid: what lies outside the outermost bone, from mid-forehead to below the chin."""

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
    cast,
    directions,
    filled,
)
from ctdeface_worker.segmentation.geometric.tissue import Tissue

Box: TypeAlias = tuple[slice, slice, slice]

HALF_FACE_DEGREES = 80.0
ABOVE_BROW_MM = 30.0
BELOW_BROW_MM = 124.0
BELOW_CHIN_MM = 16.0
ABOVE_CHIN_MM = 140.0
"""A whole face; keeps the top high enough where the brow is found too low."""
DEEPEST_BONE_MM = 24.0
"""Bone deeper below the skin than this is not the bone of this piece of skin (eye, open mouth, neck)."""
SHELL_MM = 16.0
THINNEST_SHELL_MM = 10.0
INTO_BONE_MM = 1.0
"""Takes the film of partial volume on the bone away."""
LEAST_DEPTH_MM = 5.0
"""Skin goes even where bone or metal lies at the surface."""
CHEEK_BESIDE_CAVITY_MM = 40.0
"""The broadest cheek lies no farther to the side of the cavity than this."""
GUARD_MM = 4.0
"""Around the cavity nothing is removed."""
FRONT_HALF_WIDTH_MM = 75.0
MOST_TURNED_DEGREES = 45.0
"""No head that lies in a scanner is turned farther to one side."""
LEAST_TURN_DEGREES = 10.0
"""A mask that is 15 mm too far to one side is less off than this, and is not to be followed."""
CORE_HALF_WIDTH_MM = 47.0
CORE_ABOVE_BROW_MM = 20.0
"""What anybody knows a face by lies within these: between the lateral rims of the orbits, up to the lower forehead."""
SAFE_DEPTH_MM = 36.0
"""Nothing deeper below the skin is facial soft tissue, the fattest cheek included."""
EAR_DEGREES = (60.0, 118.0)
EAR_HEIGHT_MM = 80.0
EAR_WIDTH_DEGREES = 45
"""What is lower and narrower than this on the side of the head is an ear."""
EAR_STICKS_OUT_MM = 3.0
EAR_BESIDE_BODY_MM = 24.0
"""Thin ears are missing from the body, but are near it."""
EAR_SPAN_MM = (-75.0, 25.0)
"""Ears lie within this of the brow's height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What was found about the head.

    Attributes:
        skull: place of the cavity.
        cylinder: distances to skin and bone.
        yaw_degrees: direction of the face, positive to the patient's left.
        half_width_mm: nothing farther to the side is face: arms, holders.
        brow: slice.
        chin: slice, None when no jaw is in view.
        least_depth_mm: every piece of skin loses at least this much.
        cut_above: the head ends with the cavity in view; what still lies above, such as scraps of a
            masked scan, belongs to the face.
    """

    skull: Skull
    cylinder: Cylinder
    yaw_degrees: float
    half_width_mm: float
    brow: int
    chin: int | None
    least_depth_mm: float
    cut_above: bool = False


def turned_to(face: Face, seen: BoolArray, spacing_mm: float) -> Face:
    """Return the face, looking where the middle of what somebody else takes for it lies.

    In a head that leans and turns, soft tissue tells its direction more surely than the bones do. A
    small difference is left alone, and what lies too far aside is no face.

    Args:
        face: as geometry finds it.
        seen: tissue of a face, by a network; (z, y, x) as the tissue that `face` was found in.
        spacing_mm: edge of a voxel.
    """
    _, degrees = directions((seen.shape[1], seen.shape[2]), face.cylinder.axis, spacing_mm)
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
    """Mask the facial soft tissue and everything in front of it; bone stays, but never at the price of skin."""
    cut_mm = filled(face.cylinder.skin_mm - _soft_depth(face))
    mask = _outside(tissue.body.shape, canonical.spacing_mm, face, cut_mm)
    skin_mm = filled(face.cylinder.skin_mm)
    mask &= ~(
        tissue.bone
        & ~_outside(tissue.body.shape, canonical.spacing_mm, face, skin_mm - face.least_depth_mm)
    )
    return _seen_from_front(mask & ~guard(tissue, canonical.spacing_mm), canonical, tissue, face)


def ears(canonical: Canonical, tissue: Tissue, face: Face) -> BoolArray:
    """Mask what sticks out of the side of the head at the height of the face."""
    mm = canonical.spacing_mm
    near = (
        morphology.grown(tissue.body, round(EAR_BESIDE_BODY_MM / mm))
        & (canonical.hu > SKIN_HU)
        & canonical.valid
    )
    skin_mm = filled(
        cast(
            Tissue(body=near, bone=tissue.bone, cavity=tissue.cavity), face.cylinder.axis, mm
        ).skin_mm
    )
    head_mm = ndimage.grey_opening(
        skin_mm, size=(2 * round(EAR_HEIGHT_MM / mm / 2) + 1, EAR_WIDTH_DEGREES)
    )
    side = np.abs(face.cylinder.degrees - face.yaw_degrees)
    sticks_out = (
        (skin_mm - head_mm > EAR_STICKS_OUT_MM)
        & (side >= EAR_DEGREES[0])
        & (side <= EAR_DEGREES[1])
    )
    cut_mm = np.where(ndimage.binary_dilation(sticks_out, iterations=2), head_mm + 1, np.inf)
    r_mm, degrees = directions((tissue.body.shape[1], tissue.body.shape[2]), face.cylinder.axis, mm)
    column = np.clip(
        np.rint(degrees - face.cylinder.degrees[0]).astype(int), 0, face.cylinder.degrees.size - 1
    )
    low, high = (face.brow + round(span / mm) for span in EAR_SPAN_MM)
    mask = np.zeros_like(tissue.body)
    for z in range(max(low, 0), min(high, mask.shape[0])):
        mask[z] = (r_mm >= cut_mm[z][column]) & (np.abs(degrees) <= HALF_SECTOR_DEGREES)
    return mask & morphology.dilated(near, 1) & ~tissue.bone & ~guard(tissue, mm)


def to_border(
    removed: BoolArray, place: Box, shape: tuple[int, ...], face: Face, spacing_mm: float
) -> BoolArray:
    """Bring the mask of a part of the grid to the whole grid, up to whose borders everything before the face goes too.

    Args:
        removed: mask of the part, which holds the whole body.
        place: the part.
        shape: of the whole grid.
        face: what was found in the part.
        spacing_mm: edge of a voxel.
    """
    start = [part.start or 0 for part in place]
    axis = Axis(y=face.cylinder.axis.y + start[1], x=face.cylinder.axis.x + start[2])
    r_mm, degrees = directions((shape[1], shape[2]), axis, spacing_mm)
    full = np.zeros(shape, dtype=bool)
    full[rows(face, shape[0], spacing_mm)] = ahead(r_mm, degrees, face)
    full[place] = removed
    return full


def guard(tissue: Tissue, spacing_mm: float, margin_mm: float = GUARD_MM) -> BoolArray:
    """Return the cavity, bridged where its bone rings are open, and a safety margin around it."""
    bridged = tissue.cavity.copy()
    found = np.flatnonzero(bridged.any(axis=(1, 2)))
    for below, above in pairwise(found):
        bridged[below + 1 : above] |= tissue.cavity[below] & tissue.cavity[above]
    return morphology.grown(bridged, round(margin_mm / spacing_mm))


def safe_reach(tissue: Tissue, face: Face, spacing_mm: float) -> BoolArray:
    """Return where soft tissue may be removed at all: in the sector of the face, near the skin, outside bone and cavity."""
    skin_mm, shape = filled(face.cylinder.skin_mm), tissue.body.shape
    near, at_skin = (
        _outside(shape, spacing_mm, face, skin_mm - depth, everywhere=True)
        for depth in (SAFE_DEPTH_MM, face.least_depth_mm)
    )
    return near & ~(tissue.bone & ~at_skin) & ~guard(tissue, spacing_mm)


def safe_zone(reach: BoolArray, face: Face, spacing_mm: float) -> BoolArray:
    """Return the part of that which lies in the slices of the face."""
    zone = np.zeros_like(reach)
    levels = rows(face, reach.shape[0], spacing_mm)
    zone[levels] = reach[levels]
    return zone


def middle_of_face(shape: tuple[int, ...], face: Face, spacing_mm: float) -> BoolArray:
    """Return the rays (z, x) from the front to the middle of the face, from mid-forehead to the chin."""
    levels = rows(face, shape[0], spacing_mm)
    lowest = max(levels.start, face.chin) if face.chin is not None else levels.start
    middle = np.abs(np.arange(shape[2]) - face.cylinder.axis.x) * spacing_mm <= CORE_HALF_WIDTH_MM
    rays = np.zeros((shape[0], shape[2]), dtype=bool)
    rays[lowest : levels.stop] = middle
    return rays


def core(shape: tuple[int, ...], face: Face, spacing_mm: float) -> BoolArray:
    """Return the part of these rays that no opinion of what a face is leaves out: those up to the lower forehead."""
    rays = middle_of_face(shape, face, spacing_mm)
    rays[round(face.brow + CORE_ABOVE_BROW_MM / spacing_mm) + 1 :] = False
    return rays


def rows(face: Face, slices: int, spacing_mm: float) -> slice:
    """Return the slices from below the chin to mid-forehead, as far as in view."""
    top, bottom = face.brow + ABOVE_BROW_MM / spacing_mm, face.brow - BELOW_BROW_MM / spacing_mm
    if face.chin is not None:
        if (
            face.chin * spacing_mm >= BELOW_CHIN_MM
        ):  # else the view cuts the jaw, and its lowest bone is no chin
            top = max(top, face.chin + ABOVE_CHIN_MM / spacing_mm)
        bottom = min(bottom, face.chin - BELOW_CHIN_MM / spacing_mm)
    if face.cut_above and face.skull.highest <= top:
        top = slices - 1
    return slice(max(int(bottom), 0), min(int(top), slices - 1) + 1)


def ahead(r_mm: FloatArray, degrees: FloatArray, face: Face) -> BoolArray:
    """Where the face, and what may lie in front of it, is looked for in a slice."""
    turned = degrees - face.yaw_degrees
    beside = np.abs(r_mm * np.sin(np.deg2rad(turned)))
    return np.asarray((np.abs(turned) <= HALF_FACE_DEGREES) & (beside <= face.half_width_mm))


def _soft_depth(face: Face) -> FloatArray:
    """How deep to cut along each ray: to the bone, or a shell where no bone belongs to the skin."""
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
    """Mask what lies farther from the axis than a cut, up to the image border: in the facial sector of the face's slices or of all."""
    r_mm, degrees = directions((shape[1], shape[2]), face.cylinder.axis, spacing_mm)
    sector = ahead(r_mm, degrees, face)
    levels = slice(0, shape[0]) if everywhere else rows(face, shape[0], spacing_mm)
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
    """Deepen the mask where a ray from the front still meets soft tissue hardly behind the old skin (mouth corners, nostrils)."""
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
    inside[rows(face, mask.shape[0], mm)] = True
    shallow &= inside[:, None]
    until = np.where(shallow, skin + np.ceil(face.least_depth_mm / mm), 0)
    deeper = np.arange(mask.shape[1])[None, :, None] < until[:, None, :]
    return np.asarray(mask | (deeper & ~guard(tissue, mm)), dtype=bool)
