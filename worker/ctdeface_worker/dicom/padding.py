"""Decide which padding stays untouched.

Padding inside the face mask is not filled, so its outline and its values could draw the face. It
stays only where it is what scanners write: one value around a convex field of view that is the
same in all slices. Other padding counts as dark air and is filled like it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ctdeface_shared.errors import UnsupportedObject
from ctdeface_worker.dicom.pixels import WordArray, padding_mask, stored_values
from ctdeface_worker.imaging.domain import BoolArray, Instance, Series

_LARGEST_DENT = 1e-4
"""Part of the region that may be missing inside its convex hull; rasters of circles miss none."""
_AT_THE_BORDER = 1e-6


def with_plain_padding(
    series: Series, stored: Sequence[WordArray], highest_padding_hu: float
) -> Series:
    """Return the series with padding only where it cannot draw anything.

    Args:
        series: the instances.
        stored: per instance the words of its pixel data.
        highest_padding_hu: brightest padding that can count as air, in HU.

    Raises:
        UnsupportedObject: padding that may draw something is brighter.
    """
    pairs = list(zip(series.instances, stored, strict=True))
    if all(instance.pixels.padding is None for instance in series.instances):
        return series
    masks = [padding_mask(words, instance.pixels) for instance, words in pairs]
    if _is_field_of_view(masks) and _values(masks, stored) < 2:
        return series
    for (instance, words), mask in zip(pairs, masks, strict=True):
        _raise_if_bright(instance, words[mask], highest_padding_hu)
    instances = tuple(
        replace(instance, pixels=replace(instance.pixels, padding=None))
        for instance in series.instances
    )
    return replace(series, instances=instances)


def _values(masks: Sequence[BoolArray], stored: Sequence[WordArray]) -> int:
    """Return how many different padding values occur."""
    found = [np.unique(words[mask]) for mask, words in zip(masks, stored, strict=True)]
    return int(np.unique(np.concatenate(found)).size)


def _is_field_of_view(masks: Sequence[BoolArray]) -> bool:
    """Return whether padding surrounds one convex region in all slices."""
    first = masks[0]
    same = all(np.array_equal(first, mask) for mask in masks[1:])
    return same and _is_convex(~first)


def _is_convex(region: BoolArray) -> bool:
    if region.all() or not region.any():
        return True
    points = np.argwhere(region)
    try:
        hull = ConvexHull(points)
    except QhullError:
        return False  # a line of pixels
    others = np.argwhere(~region)
    inside = np.ones(len(others), dtype=bool)
    for row, column, offset in hull.equations:
        inside &= others @ np.array([row, column]) + offset < -_AT_THE_BORDER
    return int(np.count_nonzero(inside)) <= _LARGEST_DENT * len(points)


def _raise_if_bright(instance: Instance, words: WordArray, highest_hu: float) -> None:
    pixels = instance.pixels
    hu = stored_values(words, pixels) * pixels.slope + pixels.intercept
    if hu.size and hu.max() > highest_hu:
        raise UnsupportedObject(
            f"{instance.file}: padding of {hu.max():.0f} HU is not one value around a field of "
            f"view that all slices share, so that it could draw a picture; at most "
            f"{highest_hu:.0f} HU is allowed: export the series without PixelPaddingValue"
        )
