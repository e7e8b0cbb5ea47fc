"""Find the intracranial cavity by the gate's own means.

The cavity is soft tissue that bone surrounds on every side; docs/gate.md gives the definition.
"""

import math
from itertools import product

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.imaging.morphology import column, opened, sections
from ctdeface_worker.verification.components import labeled
from ctdeface_worker.verification.hounsfield import BRAIN_HU, SKIN_HU, SKULL_HU

LEAST_ENCLOSED = 15
"""Directions, of 16 horizontal ones, in which bone must be met.

An orbit is open in more than one of them, the mouth in many.
"""
NECK_MM = 4.0
"""Half the width of an opening through which a section must not leak."""
SMALLEST_SECTION_CM2 = 8.0
WIDE_SECTION_CM2 = 60.0
"""Only the brain is as wide within bone; it has no floor if the field of view ends above it."""
LEAST_FLOORED = 0.75
"""Share of a section that has bone, or the border of the field of view, somewhere below it."""
MOST_COVERED = 0.7
"""Largest share of a piece that may be under bone with more of the cavity above it.

The poles of the temporal lobes are partly covered in this way.
"""
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
    """Return the cavity on the canonical grid, possibly empty.

    Where the border of the field of view cuts the head, it counts as bone.
    """
    wall = (canonical.hu > SKULL_HU) | ~canonical.valid
    wall = np.asarray(
        ndimage.binary_closing(np.pad(wall, 2, mode="edge"), iterations=1)[2:-2, 2:-2, 2:-2],
        dtype=bool,
    )
    barrier = (wall & canonical.valid) | _cut_tissue(canonical)
    directions = np.zeros(wall.shape, dtype=np.uint8)
    for dy, dx in _STEPS:
        directions += _meets(barrier, (dy, dx))
    enclosed = directions >= LEAST_ENCLOSED
    soft = (canonical.hu > BRAIN_HU[0]) & (canonical.hu < BRAIN_HU[1]) & canonical.valid & ~wall
    pieces = _wide_sections(enclosed & soft, wall, canonical.spacing_mm)
    return column(
        _above_floor(pieces, wall),
        smallest=SMALLEST_PIECE_ML * 1000 / canonical.spacing_mm**3,
        widest_gap=WIDEST_GAP_MM / canonical.spacing_mm,
    )


def _wide_sections(soft: BoolArray, wall: BoolArray, spacing_mm: float) -> BoolArray:
    """Drop sections that are narrow, small or without a floor.

    Narrow or small are vertebral canal, optic canal and sinuses. The fossa behind the cheek has no
    floor.
    """
    labels = sections(opened(soft, round(NECK_MM / spacing_mm)))
    pixels = np.bincount(labels.ravel())
    floor = np.maximum.accumulate(wall, axis=0)
    floored = np.bincount(labels.ravel(), weights=floor.ravel()) / np.maximum(pixels, 1)
    cm2 = pixels * spacing_mm**2 / 100
    kept = (cm2 >= SMALLEST_SECTION_CM2) & ((floored >= LEAST_FLOORED) | (cm2 >= WIDE_SECTION_CM2))
    kept[0] = False
    return np.asarray(kept[labels], dtype=bool)


def _cut_tissue(canonical: Canonical) -> BoolArray:
    """Return tissue at the border of the field of view.

    The head continues beyond it, so it serves as a wall.
    """
    tissue = (canonical.hu > SKIN_HU) & canonical.valid
    within = ndimage.binary_erosion(
        canonical.valid, _CROSS, iterations=LONGEST_STEP, border_value=0
    )
    cut: BoolArray = tissue & ~within
    return cut


def _meets(barrier: BoolArray, step: tuple[int, int]) -> BoolArray:
    """Return voxels from which repeated steps reach a barrier."""
    dy, dx = step
    rows, columns = barrier.shape[1:]
    out = barrier.copy()
    reach = max(rows // max(abs(dy), 1) if dy else 0, columns // max(abs(dx), 1) if dx else 0)
    span = 1
    while span <= reach:  # doubling: after n rounds each voxel covers the next 2**n steps
        further = np.zeros_like(barrier)
        ahead_y, here_y = _shifted(dy * span, rows)
        ahead_x, here_x = _shifted(dx * span, columns)
        further[:, here_y, here_x] = out[:, ahead_y, ahead_x]
        out |= further
        span *= 2
    return out


def _shifted(step: int, size: int) -> tuple[slice, slice]:
    """Return the slices at the end and start of a step."""
    step = max(min(step, size), -size)
    return (
        (slice(step, None), slice(None, size - step))
        if step >= 0
        else (slice(None, size + step), slice(-step, None))
    )


def _above_floor(pieces: BoolArray, wall: BoolArray) -> BoolArray:
    """Drop pieces separated by bone from the largest above.

    These are the floor of the mouth and the fossa behind the cheek.
    """
    labels, sizes = labeled(pieces)
    if np.count_nonzero(sizes) < 2:
        return pieces
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
    kept = (share < MOST_COVERED) | (sizes == sizes.max())
    kept[0] = False
    return np.asarray(kept[labels], dtype=bool)
