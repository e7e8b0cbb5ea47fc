"""Surfaces in a volume as seen from several sides."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray

Box: TypeAlias = tuple[slice, slice, slice]

SURFACE_HU = -500.0
"""Border between air and a surface; a thin shell in a coarse voxel is less dense than skin."""
AIR_BEFORE = 2
"""Voxels of air before a surface; nearer to the border of the view, it is a cut."""
BELOW_MM, ABOVE_MM = 110.0, 25.0
"""Reach of the examined head below and above its cavity."""
BEFORE_MM, BEHIND_MM, HALF_WIDTH_MM = 90.0, 50.0, 95.0
"""Its reach before and behind the cavity, and to either side of the middle."""
SIDES = (
    (1, False, (-0.5, 0.0, 0.5)),
    (1, True, (0.0,)),
    (2, False, (0.0,)),
    (2, True, (0.0,)),
    (0, False, (0.0,)),
    (0, True, (0.0,)),
)
"""Axis (z, y, x) of each view, whether it is seen from its upper end, and slants of the rays.

A face on a table or a chest may lean by some 40 degrees.
"""
PIXEL_MM = 4.0
FAR_MM = 60.0
"""Depth behind the last layer of rays that meet nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceMap:
    """A surface as seen from one side.

    Attributes:
        height_mm: height towards the viewer, of each pixel.
        further: pixels that show something apart from the examined head.
        index: voxel (z, y, x) on the gate's grid of each pixel.
    """

    height_mm: FloatArray
    further: BoolArray
    index: NDArray[np.intp]


def head_box(cavity: BoolArray, mm: float) -> Box:
    """Return the box of the examined head, (z, y, x)."""
    spans = [np.flatnonzero(cavity.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    (bottom, top), (front, back), (right, left) = ((span[0], span[-1]) for span in spans)
    middle = (right + left) / 2
    z, y, x = (
        slice(max(round(low), 0), max(round(high) + 1, 0))
        for low, high in (
            (bottom - BELOW_MM / mm, top + ABOVE_MM / mm),
            (front - BEFORE_MM / mm, back + BEHIND_MM / mm),
            (middle - HALF_WIDTH_MM / mm, middle + HALF_WIDTH_MM / mm),
        )
    )
    return z, y, x


def surface_maps(canonical: Canonical, head: Box) -> Iterator[SurfaceMap]:
    """Yield the surfaces as seen from all sides."""
    mm = canonical.spacing_mm
    tissue = (canonical.hu > SURFACE_HU) & canonical.valid
    further = np.ones(tissue.shape, dtype=bool)
    further[head] = False
    for axis, backward, slants in SIDES:
        layers, apart = (_layers(field, axis, mm, backward=backward) for field in (tissue, further))
        for down, across in product(slants, repeat=2):
            seen = _seen(layers, apart, (down, across), mm)
            layer, *pixel = seen.index
            index = [len(layers) - 1 - layer if backward else layer]
            voxel = [each * round(PIXEL_MM / mm) for each in pixel]
            yield replace(seen, index=np.stack([*voxel[:axis], *index, *voxel[axis:]]))


def _layers(field: BoolArray, axis: int, mm: float, *, backward: bool) -> BoolArray:
    """Return a field as layers from the viewer backward, with the pixels of a map."""
    step = slice(None, None, round(PIXEL_MM / mm))
    ordered = np.moveaxis(np.flip(field, axis) if backward else field, axis, 0)
    return np.ascontiguousarray(ordered[:, step, step])


def _seen(
    tissue: BoolArray, further: BoolArray, slant: tuple[float, float], mm: float
) -> SurfaceMap:
    """Return the surface that parallel rays meet first.

    Args:
        tissue: layers from the viewer backward, (layer, row, column).
        further: what is apart from the examined head, in the same order.
        slant: rows and columns that a ray moves by, in mm per mm of depth.
        mm: distance of the layers.
    """
    shape = tissue.shape[1:]
    depth = (np.arange(len(tissue)) - len(tissue) / 2) * mm / PIXEL_MM
    moved = [np.rint(each * depth).astype(int) for each in slant]
    first = np.full(shape, -1, dtype=np.intp)
    for number, layer in enumerate(tissue):
        rows, columns = (_overlap(int(by[number]), n) for by, n in zip(moved, shape, strict=True))
        rays = first[rows[0], columns[0]]
        rays[(rays < 0) & layer[rows[1], columns[1]]] = number
    met = first >= AIR_BEFORE
    at = np.where(met, first, 0)
    pixels = []
    for pixel, by, size in zip(np.indices(shape), moved, shape, strict=True):
        before = pixel + by[np.maximum(at - AIR_BEFORE, 0)]
        met &= (before >= 0) & (before < size)  # else the ray enters the view in tissue
        pixels.append(np.clip(pixel + by[at], 0, size - 1))
    steps = np.where(first >= 0, first, len(tissue) + FAR_MM / mm)
    return SurfaceMap(
        height_mm=-steps * mm * np.sqrt(1 + slant[0] ** 2 + slant[1] ** 2),
        further=met & further[at, *pixels],
        index=np.stack([at, *pixels]),
    )


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Return the pixels whose shifted places are in view, and those places."""
    shift = max(min(shift, size), -size)
    return slice(max(-shift, 0), size - max(shift, 0)), slice(max(shift, 0), size + min(shift, 0))
