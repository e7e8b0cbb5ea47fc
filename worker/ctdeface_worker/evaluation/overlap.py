"""Similarity of two masks: Dice and Hausdorff distance."""

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.canonical import GRID_MM, mask_to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Volume
from ctdeface_worker.imaging.hounsfield import SKIN_HU


def dice(one: BoolArray, other: BoolArray) -> float:
    """Return the Dice coefficient; 1 for two empty masks."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else 1.0


def tissue_of(volume: Volume) -> BoolArray:
    """Return the valid voxels denser than air."""
    tissue: BoolArray = (volume.hu > SKIN_HU) & volume.valid
    return tissue


def hausdorff95_mm(volume: Volume, one: BoolArray, other: BoolArray) -> float | None:
    """Return the 95th percentile Hausdorff distance in mm.

    Only tissue is compared, as masks extend through air to the border of the field of view. The
    result is None if a mask contains no tissue.
    """
    tissue = tissue_of(volume)
    first, second = (
        mask_to_canonical(mask & tissue, volume.geometry, spacing_mm=GRID_MM)
        for mask in (one, other)
    )
    union = first | second
    if not (first.any() and second.any()):
        return None
    place = ndimage.find_objects(np.pad(union, 1).astype(np.uint8))[0]
    near, far = (_border(np.pad(mask, 1)[place]) for mask in (first, second))
    apart = [*_distances(near, far), *_distances(far, near)]
    return float(np.percentile(apart, 95))


def _border(mask: BoolArray) -> BoolArray:
    border: BoolArray = mask & ~ndimage.binary_erosion(mask)
    return border


def _distances(of: BoolArray, to: BoolArray) -> FloatArray:
    distance: FloatArray = ndimage.distance_transform_edt(~to, sampling=GRID_MM)
    return distance[of]
