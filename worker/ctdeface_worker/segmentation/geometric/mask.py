"""The face mask on the canonical grid: what lies outside the outermost bone, from mid-forehead to below the chin."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from ctdeface_worker import morphology
from ctdeface_worker.canonical import Canonical
from ctdeface_worker.domain import BoolArray, FloatArray
from ctdeface_worker.segmentation.geometric.landmarks import Skull
from ctdeface_worker.segmentation.geometric.rays import Axis, Cylinder, directions, filled
from ctdeface_worker.segmentation.geometric.tissue import BONE_HU, SKIN_HU, Tissue

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
BULKY_DEPTH_MM = 38.0
BULKY_TAPER_MM = 24.0
EAR_DEGREES = (65.0, 118.0)
EAR_ROUND_MM = 14.0
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
    """

    skull: Skull
    cylinder: Cylinder
    yaw_degrees: float
    half_width_mm: float
    brow: int
    chin: int | None
    least_depth_mm: float


def soft_tissue(canonical: Canonical, tissue: Tissue, face: Face) -> BoolArray:
    """Mask the facial soft tissue and everything in front of it; bone stays, but never at the price of skin."""
    cut_mm = filled(face.cylinder.skin_mm - _soft_depth(face))
    mask = _outside(tissue.body.shape, canonical.spacing_mm, face, cut_mm)
    skin_mm = filled(face.cylinder.skin_mm)
    mask &= ~(tissue.bone & ~_outside(tissue.body.shape, canonical.spacing_mm, face, skin_mm - face.least_depth_mm))
    return _seen_from_front(mask & ~guard(tissue, canonical.spacing_mm), canonical, tissue, face)


def bulky(canonical: Canonical, tissue: Tissue, face: Face) -> BoolArray:
    """Add orbits and facial skeleton below the brow, to a smooth rounded surface far behind the skin."""
    mm = canonical.spacing_mm
    smooth = ndimage.gaussian_filter(filled(face.cylinder.skin_mm), (10 / mm, 8))
    below_brow = np.clip((face.brow - np.arange(smooth.shape[0])) * mm / BULKY_TAPER_MM, 0, 1)[:, None]
    cut_mm = np.where(below_brow > 0, smooth - BULKY_DEPTH_MM * below_brow, np.inf)
    deep = _outside(tissue.body.shape, mm, face, cut_mm)
    return soft_tissue(canonical, tissue, face) | (deep & ~guard(tissue, mm))


def ears(canonical: Canonical, tissue: Tissue, face: Face) -> BoolArray:
    """Mask what sticks out of the rounded side of the head at the height of the face."""
    mm = canonical.spacing_mm
    _, degrees = directions(tissue.body.shape[1:], face.cylinder.axis, mm)
    side = np.abs(degrees - face.yaw_degrees)
    beside = (side >= EAR_DEGREES[0]) & (side <= EAR_DEGREES[1])
    low, high = (face.brow + round(span / mm) for span in EAR_SPAN_MM)
    levels = slice(max(low, 0), min(high, tissue.body.shape[0]))
    rounded = morphology.opened(tissue.body[levels], round(EAR_ROUND_MM / mm))
    mask = np.zeros_like(tissue.body)
    mask[levels] = morphology.dilated(tissue.body[levels] & ~rounded & beside, 1) & ~rounded
    return mask & ~guard(tissue, mm)


def to_border(removed: BoolArray, place: Box, shape: tuple[int, ...], face: Face, spacing_mm: float) -> BoolArray:
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
    full[rows(face, shape[0], spacing_mm)] = _ahead(r_mm, degrees, face)
    full[place] = removed
    return full


def guard(tissue: Tissue, spacing_mm: float) -> BoolArray:
    """Return the cavity, bridged where its bone rings are open, and a safety margin around it."""
    bridged = tissue.cavity.copy()
    found = np.flatnonzero(bridged.any(axis=(1, 2)))
    for below, above in pairwise(found):
        bridged[below + 1 : above] |= tissue.cavity[below] & tissue.cavity[above]
    return morphology.grown(bridged, round(GUARD_MM / spacing_mm))


def rows(face: Face, slices: int, spacing_mm: float) -> slice:
    """Return the slices from below the chin to mid-forehead, as far as in view."""
    top, bottom = face.brow + ABOVE_BROW_MM / spacing_mm, face.brow - BELOW_BROW_MM / spacing_mm
    if face.chin is not None:
        top = max(top, face.chin + ABOVE_CHIN_MM / spacing_mm)
        bottom = min(bottom, face.chin - BELOW_CHIN_MM / spacing_mm)
    return slice(max(int(bottom), 0), min(int(top), slices - 1) + 1)


def _ahead(r_mm: FloatArray, degrees: FloatArray, face: Face) -> BoolArray:
    """Where the face, and what may lie in front of it, is looked for in a slice."""
    turned = degrees - face.yaw_degrees
    beside = np.abs(r_mm * np.sin(np.deg2rad(turned)))
    return np.asarray((np.abs(turned) <= HALF_FACE_DEGREES) & (beside <= face.half_width_mm))


def _soft_depth(face: Face) -> FloatArray:
    """How deep to cut along each ray: to the bone, or a shell where no bone belongs to the skin."""
    depth = face.cylinder.depth_mm
    has_bone = depth <= DEEPEST_BONE_MM
    wanted = np.where(has_bone, np.maximum(depth + INTO_BONE_MM, face.least_depth_mm), SHELL_MM)
    shell = np.clip(ndimage.median_filter(wanted, (5, 5)), max(THINNEST_SHELL_MM, face.least_depth_mm), DEEPEST_BONE_MM)
    return np.where(has_bone, wanted, shell)


def _outside(shape: tuple[int, ...], spacing_mm: float, face: Face, cut_mm: FloatArray) -> BoolArray:
    """Mask what lies farther from the axis than a cut, within the facial sector, up to the image border."""
    r_mm, degrees = directions((shape[1], shape[2]), face.cylinder.axis, spacing_mm)
    sector = _ahead(r_mm, degrees, face)
    column = np.clip(np.rint(degrees - face.cylinder.degrees[0]).astype(int), 0, face.cylinder.degrees.size - 1)
    mask = np.zeros(shape, dtype=bool)
    for z in range(*rows(face, shape[0], spacing_mm).indices(shape[0])):
        mask[z] = sector & (r_mm >= cut_mm[z][column])
    return mask


def _seen_from_front(mask: BoolArray, canonical: Canonical, tissue: Tissue, face: Face) -> BoolArray:
    """Deepen the mask where a ray from the front still meets soft tissue hardly behind the old skin (mouth corners, nostrils)."""
    mm = canonical.spacing_mm
    kept = (canonical.hu > SKIN_HU) & canonical.valid & ~mask
    skin, meets = tissue.body.argmax(axis=1), kept.argmax(axis=1)
    there = tissue.body.any(axis=1) & kept.any(axis=1)
    hu = np.take_along_axis(canonical.hu, meets[:, None, :], axis=1)[:, 0]
    shallow = there & ((meets - skin) * mm < face.least_depth_mm) & (hu <= BONE_HU + 20)
    columns = np.arange(mask.shape[2])
    shallow &= (np.abs(columns - face.cylinder.axis.x) * mm <= FRONT_HALF_WIDTH_MM) & (skin < face.cylinder.axis.y - 20 / mm)
    inside = np.zeros(mask.shape[0], dtype=bool)
    inside[rows(face, mask.shape[0], mm)] = True
    shallow &= inside[:, None]
    until = np.where(shallow, skin + np.ceil(face.least_depth_mm / mm), 0)
    deeper = np.arange(mask.shape[1])[None, :, None] < until[:, None, :]
    return np.asarray(mask | (deeper & ~guard(tissue, mm)), dtype=bool)
