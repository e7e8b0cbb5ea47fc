"""Extend a face mask to the profile bulky.

It removes orbits and facial skeleton as well and leaves a wide, rounded and irregular surface.

A thin mask leaves a recognizable surface, because bone follows skin. The surface here follows
neither. In every slice the cut is an arc around the head's axis, as wide as the head. It runs
backward below the brow and forward again below the chin. Shallow undulations, the same for every
head, break the remaining regularity. Around the intracranial cavity a smoothed margin stays.
"""

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, HuArray
from ctdeface_worker.segmentation.geometric.mask import Face, face_slices, facial_sector, guard
from ctdeface_worker.segmentation.geometric.rays import fill_missing, polar_coordinates
from ctdeface_worker.segmentation.geometric.tissue import Tissue

AHEAD_DEGREES = 12.0
FOREHEAD_MM = 8.0
"""Distance from skin to bone at the brow."""
BELOW_BROW_MM = (-16.0, -4.0, 14.0, 60.0, 110.0)
BEHIND_BROW_MM = (0.0, 16.0, 47.0, 58.0, 72.0)
"""Depth of the cut per height; behind the globes in the orbits, deeper toward the chin."""
ORBIT_MM = 14.0
LEAST_MM = 34.0
"""Smallest depth behind the skin, also in a head bent back."""
BEFORE_AXIS_MM = 17.0
"""Rearmost cut before the axis; spine and carotid arteries stay."""
CHIN_ARC_MM = 16.0
"""Height below the chin over which the cut comes forward again."""
BESIDE_CAVITY_MM = 4.0
"""Width of the arc beyond that of the cavity, beside the orbits."""
JAW_HALF_MM = 46.0
"""Half the width of the arc at the chin; every jaw is wider."""
EAR_LOBE_MM = 72.0
"""Depth below the brow from which on the cut goes around the head."""
BEHIND_AXIS_MM = 6.0
"""Rearmost cut behind the axis where it goes around the head."""
UNDULATIONS_MM = (
    (3.0, 46.0, 0.4, 0.3),
    (2.5, 31.0, 1.9, 1.1),
    (2.0, 23.0, -0.6, 2.0),
    (1.5, 37.0, -1.3, 4.0),
)
"""Amplitude (mm), wavelength (mm), direction and phase (radians); they only deepen the cut."""
GUARD_MM = 6.0
GUARD_BLUR_MM = 9.0
GUARD_SHARE = (0.24, 0.5)


def bulky(mask: BoolArray, tissue: Tissue, face: Face, spacing_mm: float) -> BoolArray:
    """Extend a face mask.

    Args:
        mask: on the grid around the body (z, y, x).
        tissue: body, bone and cavity on the same grid.
        face: landmarks and extent of the face.
        spacing_mm: edge of a voxel.
    """
    mm = spacing_mm
    r_mm, degrees = polar_coordinates((mask.shape[1], mask.shape[2]), face.cylinder.axis, mm)
    turned = np.deg2rad(degrees - face.yaw_degrees)
    ahead_mm, beside_mm = r_mm * np.cos(turned), r_mm * np.sin(turned)
    cut_mm = _cut(face, mm)
    deep = np.zeros_like(mask)
    sector = facial_sector(r_mm, degrees, face)
    around = (np.abs(beside_mm) <= face.half_width_mm) & (ahead_mm >= -BEHIND_AXIS_MM)
    for z in range(*face_slices(face, mask.shape[0], mm).indices(mask.shape[0])):
        if np.isfinite(cut_mm[z]):
            below_mm = (face.brow - z) * mm
            forward = _arc(beside_mm, below_mm, face.skull.half_width * mm)
            arc = cut_mm[z] * forward - _undulation_mm(below_mm, beside_mm)
            deep[z] = np.where(below_mm > EAR_LOBE_MM, around, sector) & (ahead_mm >= arc)
    return np.asarray(mask | (deep & ~_smooth_guard(tissue, mm)), dtype=np.bool_)


def _arc(beside_mm: FloatArray, below_mm: float, cavity_half_mm: float) -> FloatArray:
    """Return the relative forward position of the cut beside the middle.

    1 stands for the position in the middle.

    Beyond its width the cut has no limit in front.
    """
    wide = cavity_half_mm + BESIDE_CAVITY_MM
    half_mm = np.interp(
        below_mm, (EAR_LOBE_MM - 10, BELOW_BROW_MM[-1]), (wide, min(JAW_HALF_MM, wide))
    )
    within = np.sqrt(np.clip(1 - (beside_mm / half_mm) ** 2, 0, 1))
    return np.where(np.abs(beside_mm) < half_mm, within, -1.0)


def _cut(face: Face, spacing_mm: float) -> FloatArray:
    """Return the cut's distance before the axis per slice, in mm.

    It is measured in the middle, and infinite without a cut.
    """
    straight = np.abs(face.cylinder.degrees - face.yaw_degrees) < AHEAD_DEGREES
    skin_mm = np.median(fill_missing(face.cylinder.skin_mm)[:, straight], axis=1)
    number = np.arange(skin_mm.size)
    below_mm = (face.brow - number) * spacing_mm
    plane = skin_mm[face.brow] - FOREHEAD_MM - np.interp(below_mm, BELOW_BROW_MM, BEHIND_BROW_MM)
    share = np.clip(below_mm / ORBIT_MM, 0, 1)
    behind_skin = ndimage.gaussian_filter1d(skin_mm, 10 / spacing_mm) - LEAST_MM * share
    lowest = face.chin if face.chin is not None else 0
    cut = np.where(number >= lowest, np.minimum(plane, behind_skin), plane)
    smooth = ndimage.gaussian_filter1d(np.maximum(cut, BEFORE_AXIS_MM), 4 / spacing_mm)
    if face.chin is not None:
        down = np.clip((face.chin - number) * spacing_mm / CHIN_ARC_MM, 0, 1)
        smooth += (1 - np.sqrt(1 - down**2)) * np.maximum(skin_mm - smooth, 0)
    return np.where(below_mm > BELOW_BROW_MM[0], smooth, np.inf)


def _undulation_mm(below_mm: float, beside_mm: FloatArray) -> FloatArray:
    """Return the additional depth in mm of the cut.

    It is a sum of sinusoids in the plane of the face, each between 0 and its amplitude.
    """
    deeper = np.zeros_like(beside_mm)
    for amplitude, wavelength, direction, phase in UNDULATIONS_MM:
        along = beside_mm * np.cos(direction) + below_mm * np.sin(direction)
        deeper += amplitude * (1 + np.sin(2 * np.pi * along / wavelength + phase)) / 2
    return deeper


def _smooth_guard(tissue: Tissue, spacing_mm: float) -> BoolArray:
    """Return the cavity with an uneven, blurred margin.

    Its surface shows nothing of brows and orbits.
    """
    near: HuArray = guard(tissue, spacing_mm, GUARD_MM).astype(np.float32)
    blurred = ndimage.gaussian_filter(near, GUARD_BLUR_MM / spacing_mm, truncate=2.0)
    z, y, x = (np.arange(n, dtype=np.float32) * spacing_mm for n in near.shape)
    uneven = (
        np.sin(z / 6.1)[:, None, None]
        + np.sin(y / 7.3 + 1)[None, :, None]
        + np.sin(x / 5.2 + 2)[None, None, :]
    )
    low, high = GUARD_SHARE
    smooth: BoolArray = blurred >= low + (high - low) * (3 + uneven) / 6
    return smooth | guard(tissue, spacing_mm)
