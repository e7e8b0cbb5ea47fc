"""The intracranial cavity by the gate's own means: soft tissue that bone surrounds on every side (DESIGN section 10)."""

import math
from itertools import product

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.imaging.morphology import column, opened, sections

SKIN_HU = -300.0
BONE_HU = 160.0
BRAIN_HU = (-10.0, 100.0)
LEAST_ENCLOSED = 15
"""Of 16 horizontal directions; an orbit is open to more than one of them, the mouth to many."""
NECK_MM = 4.0
"""Half the width of the openings that a section must not leak through."""
SMALLEST_SECTION_CM2 = 8.0
WIDE_SECTION_CM2 = 60.0
"""Nothing else within bone is as wide as the brain, which has no floor where the field of view ends above it."""
LEAST_FLOORED = 0.75
"""Of a section of the cavity, so much has bone, or the cut of the field of view, somewhere below it."""
MOST_COVERED = 0.7
"""Of a piece of the cavity, so much may lie under bone that has more of the cavity above it, as the poles of the temporal lobes do."""
SMALLEST_PIECE_ML = 5.0
WIDEST_GAP_MM = 70.0

LONGEST_STEP = 2
_CROSS = ndimage.generate_binary_structure(2, 1)[None]
_STEPS = [
    step
    for step in product(range(-LONGEST_STEP, LONGEST_STEP + 1), repeat=2)
    if math.gcd(*step) == 1
]


def find_cavity(canonical: Canonical) -> BoolArray:
    """Return the cavity on the canonical grid; empty when there is none. Where the field of view cuts the head, the cut counts as bone."""
    wall = (canonical.hu > BONE_HU) | ~canonical.valid
    wall = np.asarray(
        ndimage.binary_closing(np.pad(wall, 2, mode="edge"), iterations=1)[2:-2, 2:-2, 2:-2],
        dtype=bool,
    )
    hard = (wall & canonical.valid) | _cut(canonical)
    directions = np.zeros(wall.shape, dtype=np.uint8)
    for dy, dx in _STEPS:
        directions += _meets(hard, (dy, dx))
    enclosed = directions >= LEAST_ENCLOSED
    soft = (canonical.hu > BRAIN_HU[0]) & (canonical.hu < BRAIN_HU[1]) & canonical.valid & ~wall
    return _joined(_wide(enclosed & soft, wall, canonical.spacing_mm), wall, canonical.spacing_mm)


def _wide(soft: BoolArray, wall: BoolArray, spacing_mm: float) -> BoolArray:
    """Drop what is narrow or small in its section (vertebral canal, optic canal, sinuses) or has no floor (the fossa behind the cheek)."""
    labels = sections(opened(soft, round(NECK_MM / spacing_mm)))
    pixels = np.bincount(labels.ravel())
    floor = np.maximum.accumulate(wall, axis=0)
    floored = np.bincount(labels.ravel(), weights=floor.ravel()) / np.maximum(pixels, 1)
    cm2 = pixels * spacing_mm**2 / 100
    stays = (cm2 >= SMALLEST_SECTION_CM2) & ((floored >= LEAST_FLOORED) | (cm2 >= WIDE_SECTION_CM2))
    stays[0] = False
    return np.asarray(stays[labels], dtype=bool)


def _cut(canonical: Canonical) -> BoolArray:
    """Tissue at the border of the field of view, in its slice: the head goes on behind it, or its bone was met before."""
    tissue = (canonical.hu > SKIN_HU) & canonical.valid
    within = ndimage.binary_erosion(
        canonical.valid, _CROSS, iterations=LONGEST_STEP, border_value=0
    )
    cut: BoolArray = tissue & ~within
    return cut


def _meets(met: BoolArray, step: tuple[int, int]) -> BoolArray:
    """Whether a walk in steps of (y, x) voxels from each voxel meets one of these before it leaves the grid."""
    dy, dx = step
    rows, columns = met.shape[1:]
    out = met.copy()
    reach = max(rows // max(abs(dy), 1) if dy else 0, columns // max(abs(dx), 1) if dx else 0)
    span = 1
    while span <= reach:  # doubling: after n rounds each voxel knows the next 2**n steps
        further = np.zeros_like(met)
        ahead_y, here_y = _shifted(dy * span, rows)
        ahead_x, here_x = _shifted(dx * span, columns)
        further[:, here_y, here_x] = out[:, ahead_y, ahead_x]
        out |= further
        span *= 2
    return out


def _shifted(step: int, size: int) -> tuple[slice, slice]:
    """Slices (where a step leads to, where it starts)."""
    step = max(min(step, size), -size)
    return (
        (slice(step, None), slice(None, size - step))
        if step >= 0
        else (slice(None, size + step), slice(-step, None))
    )


def _joined(pieces: BoolArray, wall: BoolArray, spacing_mm: float) -> BoolArray:
    """Keep the largest piece and what lies above or below it, but for what the floor of the skull covers."""
    return column(
        _above_floor(pieces, wall),
        smallest=SMALLEST_PIECE_ML * 1000 / spacing_mm**3,
        widest_gap=WIDEST_GAP_MM / spacing_mm,
    )


def _above_floor(pieces: BoolArray, wall: BoolArray) -> BoolArray:
    """Drop pieces with bone between them and the largest one above: the floor of the mouth, the fossa behind the cheek."""
    labels, count = ndimage.label(pieces)
    if count < 2:
        return pieces
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = labels == sizes.argmax()
    covered = np.zeros_like(pieces)
    roof, brain = np.zeros_like(wall[0]), np.zeros_like(wall[0])
    for z in range(pieces.shape[0] - 1, -1, -1):
        covered[z] = roof & brain
        brain |= largest[z]
        roof = (roof | wall[z]) & ~largest[z]
    share = np.bincount(labels.ravel(), weights=covered.ravel()) / np.maximum(
        np.bincount(labels.ravel()), 1
    )
    stays = (share < MOST_COVERED) | (sizes == sizes.max())
    stays[0] = False
    return np.asarray(stays[labels], dtype=bool)
