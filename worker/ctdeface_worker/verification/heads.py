"""Find further heads by the bone around their cavities.

A skull encloses its cavity in axial, coronal and sagittal sections. Orbits, mouth, sinuses and the
trunk are open in two of them, or small; docs/trust/gate.md gives the figures.
"""

from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, Geometry
from ctdeface_worker.verification.check import Check, at_most, milliliters
from ctdeface_worker.verification.components import labeled
from ctdeface_worker.verification.hounsfield import BONE_HU, SKIN_HU
from ctdeface_worker.verification.location import place_of_canonical

Value = TypeVar("Value", bound=np.generic)

ONE_HEAD = frozenset({"one_skull", "one_face"})
"""Checks that fail for a second head."""
COARSER = 2
"""Factor from the gate's grid to voxels of 4 mm."""
HALF_GAP_MM = 8.0
"""Half the width of the gaps in bone that are closed: sutures, fontanelles, thin bone."""
LEAST_PLANES = 2
"""Planes, of axial, coronal and sagittal ones, in which bone must enclose a voxel."""
CORE_MM = 12.0
"""Smallest distance from the middle of a cavity to its wall; sinuses are narrower."""
MOST_FURTHER_ML = 40.0
"""Largest further cavity in one head, measured `HALF_GAP_MM` inside its wall.

Of 136 real heads the largest is 25 ml, a nasal cavity; a newborn's skull has 60 ml.
"""
_NEIGHBORS = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherCavity:
    """The largest cavity within bone that is not the examined one.

    Attributes:
        ml: its volume, 0 without one.
        voxels: the cavity on the coarser grid, (z, y, x).
        coarse: that grid.
    """

    ml: float
    voxels: BoolArray
    coarse: Canonical


def find_further_cavity(canonical: Canonical, cavity: BoolArray) -> FurtherCavity:
    """Find a cavity within bone besides the examined one.

    Args:
        canonical: the input, on the gate's grid.
        cavity: the examined intracranial cavity on that grid.
    """
    coarse = _coarser(canonical)
    labels, sizes = labeled(_enclosed(coarse))
    if sizes.size > 1:
        own = np.bincount(labels[_any_of_blocks(cavity)], minlength=sizes.size)
        own[0] = 0
        if own.any():  # two skulls that touch may share the examined cavity, so only one is its own
            sizes[own.argmax()] = 0
    ml = float(sizes.max(initial=0) * coarse.spacing_mm**3 / 1000)
    voxels = labels == sizes.argmax() if ml else np.zeros(labels.shape, dtype=bool)
    return FurtherCavity(ml=ml, voxels=voxels, coarse=coarse)


def check_one_skull(further: FurtherCavity, geometry: Geometry) -> Check:
    """Check that the examined skull is the only one.

    Args:
        further: the largest cavity besides the examined one.
        geometry: of the input, to name slices.
    """
    coarse = further.coarse
    middle_mm = float(coarse.origin_lps[0] + coarse.hu.shape[2] / 2 * coarse.spacing_mm)
    return at_most(
        "one_skull",
        further.ml,
        MOST_FURTHER_ML,
        milliliters,
        "bone encloses {} outside the examined skull, as a second head's does",
    ).located(lambda: place_of_canonical(further.voxels, coarse, geometry, middle_mm))


def _enclosed(coarse: Canonical) -> BoolArray:
    """Return the wide spaces that bone encloses.

    Tissue at the border of the field of view counts as bone.
    """
    within = ndimage.binary_erosion(coarse.valid, _NEIGHBORS, border_value=0)
    wall = (coarse.hu > BONE_HU) & coarse.valid
    wall |= (coarse.hu > SKIN_HU) & coarse.valid & ~within
    reach = round(HALF_GAP_MM / coarse.spacing_mm)
    room = reach + 1
    wide = ndimage.binary_dilation(np.pad(wall, room), _NEIGHBORS, iterations=reach)
    planes = np.add.reduce([_holes(wide, axis).astype(np.uint8) for axis in range(3)])
    inner = (slice(room, -room),) * 3
    enclosed = (planes >= LEAST_PLANES)[inner] & coarse.valid
    core = round(CORE_MM / coarse.spacing_mm)
    return np.asarray(ndimage.binary_opening(enclosed, _NEIGHBORS, iterations=core), dtype=bool)


def _holes(wall: BoolArray, axis: int) -> BoolArray:
    """Return what a wall encloses in the sections along an axis.

    The outermost voxels of the wall must be unset.
    """
    plane = _NEIGHBORS.copy()
    for side in (0, 2):
        plane[tuple(side if each == axis else slice(None) for each in range(3))] = False
    labels, count = ndimage.label(~wall, plane)
    outside = np.zeros(count + 1, dtype=bool)
    for across in {0, 1, 2} - {axis}:
        outside[np.take(labels, [0, -1], axis=across)] = True
    outside[0] = True
    return np.asarray(~outside[labels], dtype=bool)


def _coarser(canonical: Canonical) -> Canonical:
    """Return the densest voxel of each block, so that thin bone stays closed."""
    spacing_mm = canonical.spacing_mm
    return Canonical(
        hu=np.maximum.reduce(_parts(canonical.hu)),
        valid=np.logical_and.reduce(_parts(canonical.valid)),
        origin_lps=canonical.origin_lps + (COARSER - 1) / 2 * spacing_mm,
        spacing_mm=COARSER * spacing_mm,
    )


def _any_of_blocks(mask: BoolArray) -> BoolArray:
    return np.asarray(np.logical_or.reduce(_parts(mask)), dtype=bool)


def _parts(field: NDArray[Value]) -> list[NDArray[Value]]:
    """Return the first, second, … voxels of all blocks."""
    room = [(0, -size % COARSER) for size in field.shape]
    even = np.pad(field, room, mode="edge")
    return [
        even[z::COARSER, y::COARSER, x::COARSER] for z, y, x in product(range(COARSER), repeat=3)
    ]
