"""Fast binary morphology on axial sections of a volume.

Arrays are (z, y, x), and the results equal those of scipy on each section. A disk is a stack of
horizontal runs, so dilation by a disk is a few dozen ORs of shifted arrays.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray

LabelArray: TypeAlias = NDArray[np.int32]

_IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def dilated(mask: BoolArray, radius: int) -> BoolArray:
    """Dilate every section by a disk.

    The radius is in voxels.
    """
    return _dilated(mask, radius, outside=False)


def eroded(mask: BoolArray, radius: int) -> BoolArray:
    """Erode every section by a disk.

    Voxels beyond the border count as set.
    """
    return ~_dilated(~mask, radius, outside=True)


def opened(mask: BoolArray, radius: int) -> BoolArray:
    """Erode, then dilate every section by a disk."""
    return dilated(eroded(mask, radius), radius)


def closed(mask: BoolArray, radius: int) -> BoolArray:
    """Dilate, then erode every section by a disk.

    The border of the section has no effect.
    """
    room = ((0, 0), (2 * radius, 2 * radius), (2 * radius, 2 * radius))
    return eroded(dilated(np.pad(mask, room), radius), radius)[
        :, 2 * radius : -2 * radius, 2 * radius : -2 * radius
    ]


def grown(mask: BoolArray, steps: int) -> BoolArray:
    """Dilate by steps to the six neighbors."""
    out = mask.copy()
    for _ in range(steps):
        last = out.copy()
        for axis in range(3):
            here, there = [slice(None)] * 3, [slice(None)] * 3
            here[axis], there[axis] = slice(None, -1), slice(1, None)
            out[tuple(here)] |= last[tuple(there)]
            out[tuple(there)] |= last[tuple(here)]
    return out


def before(mask: BoolArray) -> BoolArray:
    """Return the voxels in front of a mask.

    They have a smaller y than the mask; columns that miss the mask have none.
    """
    first = np.where(mask.any(axis=1), mask.argmax(axis=1), 0)
    in_front: BoolArray = np.arange(mask.shape[1])[None, :, None] < first[:, None, :]
    return in_front


def holes(mask: BoolArray) -> BoolArray:
    """Return the holes of every section.

    These are unset voxels that are not connected to the border of the section.
    """
    labels = sections(~mask)
    border = [labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]
    open_ones = np.zeros(int(labels.max(initial=0)) + 1, dtype=bool)
    for edge in border:
        open_ones[edge.ravel()] = True
    open_ones[0] = True
    enclosed: BoolArray = ~open_ones[labels]
    return enclosed


def sections(mask: BoolArray) -> LabelArray:
    """Label the components of each section; 0 is background."""
    return np.asarray(ndimage.label(mask, _IN_PLANE)[0], dtype=np.int32)


def largest_component(mask: BoolArray) -> BoolArray:
    """Return the largest component of voxels connected by faces.

    Args:
        mask: (z, y, x); without any voxel set it is returned as it is.
    """
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: BoolArray = labels == sizes.argmax()
    return largest


def column(pieces: BoolArray, *, smallest: float, widest_gap: float) -> BoolArray:
    """Keep the largest component and those above or below.

    Args:
        pieces: (z, y, x).
        smallest: voxels that a further component must have.
        widest_gap: sections that may separate it from the largest one; seen along z, they must
            overlap by half of the smaller one.
    """
    labels, count = ndimage.label(pieces)
    if not count:
        return pieces
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    main = int(sizes.argmax())
    places = ndimage.find_objects(labels)
    footprint = (labels == main).any(axis=0)
    keep = [main]
    for piece in np.flatnonzero(sizes >= smallest):
        z, other = places[main - 1][0], places[piece - 1][0]
        shadow = (labels == piece).any(axis=0)
        near = max(other.start - z.stop, z.start - other.stop, 0) <= widest_gap
        if near and (footprint & shadow).sum() >= min(footprint.sum(), shadow.sum()) / 2:
            keep.append(int(piece))
    return np.isin(labels, keep)


def _dilated(mask: BoolArray, radius: int, *, outside: bool) -> BoolArray:
    if radius == 0:
        return mask.copy()
    _, rows, columns = mask.shape
    room = ((0, 0), (radius, radius), (radius, radius))
    wide = np.pad(mask, room, constant_values=outside)
    runs = wide[:, :, radius : radius + columns].copy()
    out: BoolArray = np.zeros(mask.shape, dtype=bool)
    half = 0
    for y in range(radius, -1, -1):
        wanted = math.isqrt(radius * radius - y * y)
        while half < wanted:
            half += 1
            runs |= wide[:, :, radius - half : radius - half + columns]
            runs |= wide[:, :, radius + half : radius + half + columns]
        out |= runs[:, radius - y : radius - y + rows]
        out |= runs[:, radius + y : radius + y + rows]
    return out
