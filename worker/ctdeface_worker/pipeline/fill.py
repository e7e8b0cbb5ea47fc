"""Fill the face with air in the stored words.

Padding voxels (PixelPaddingValue, DICOM PS3.3 C.7.5.1.1.2) are never changed or used as fill.
"""

import numpy as np

from ctdeface_shared.errors import InconsistentGeometry, UnsupportedObject
from ctdeface_shared.jobs.options import HIGHEST_FILL_HU, FillKind, FillRule
from ctdeface_worker.dicom.pixels import WordArray, padding_mask, with_stored_value
from ctdeface_worker.dicom.volume import LoadedSeries
from ctdeface_worker.imaging.domain import BoolArray, FaceMask, PixelFormat, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU, AIR_RANGE_HU

_SAMPLES = 2_000_000


def fill_value_hu(volume: Volume, rule: FillRule) -> float:
    """Choose the fill value, at most -800 HU.

    `air` is the median of the valid voxels between -1100 and -900 HU, or -1000 without such voxels.
    `p10` is the 10th percentile of the valid voxels. Large volumes are sampled evenly.
    """
    if rule.kind is FillKind.FIXED and rule.hu is not None:
        return float(min(rule.hu, HIGHEST_FILL_HU))
    step = max(volume.hu.size // _SAMPLES, 1)
    hu = volume.hu.reshape(-1)[::step][volume.valid.reshape(-1)[::step]]
    if rule.kind is FillKind.AIR:
        hu = hu[(hu >= AIR_RANGE_HU[0]) & (hu <= AIR_RANGE_HU[1])]
    if not hu.size:
        return AIR_HU
    chosen = float(np.median(hu) if rule.kind is FillKind.AIR else np.percentile(hu, 10))
    return min(chosen, float(HIGHEST_FILL_HU))


def require_same_shape(mask: FaceMask, volume: Volume) -> None:
    """Check that a mask has the shape of its volume.

    Raises:
        InconsistentGeometry: it has another shape.
    """
    if mask.face.shape != volume.geometry.shape:
        raise InconsistentGeometry(
            f"the mask has the shape {mask.face.shape}; the shape of the volume, "
            f"{volume.geometry.shape}, is required"
        )


def fill_stored(loaded: LoadedSeries, mask: FaceMask, fill_hu: float) -> tuple[WordArray, ...]:
    """Return the stored words with the face filled.

    An instance without face keeps the identical array.

    Raises:
        InconsistentGeometry: the mask has another shape than the volume.
        UnsupportedObject: the stored integers of an instance cannot hold air.
    """
    require_same_shape(mask, loaded.volume)
    return tuple(
        _filled(words, mask.face[k], instance.pixels, fill_hu)
        for words, k, instance in zip(
            loaded.stored, loaded.slice_of, loaded.series.instances, strict=True
        )
    )


def fill_stored_value(pixels: PixelFormat, fill_hu: float) -> int:
    """Return the fill as a stored integer, never padding."""
    low, high = pixels.stored_range
    value = int(np.clip(np.rint((fill_hu - pixels.intercept) / pixels.slope), low, high))
    if pixels.padding is None or not pixels.padding[0] <= value <= pixels.padding[1]:
        return value
    brighter = 1 if pixels.slope > 0 else -1
    beside = [pixels.padding[1] + 1, pixels.padding[0] - 1][::brighter]
    return next((candidate for candidate in beside if low <= candidate <= high), value)


def defaced_volume(loaded: LoadedSeries, mask: FaceMask, fill_hu: float) -> Volume:
    """Return the volume of the written instances, rounding included."""
    hu = loaded.volume.hu.copy()
    changed: BoolArray = mask.face & loaded.volume.valid
    done: set[int] = set()
    for k, instance in zip(loaded.slice_of, loaded.series.instances, strict=True):
        if k not in done:
            value = fill_stored_value(instance.pixels, fill_hu)
            hu[k][changed[k]] = np.float32(value) * np.float32(instance.pixels.slope) + np.float32(
                instance.pixels.intercept
            )
            done.add(k)
    return Volume(hu=hu, valid=loaded.volume.valid, geometry=loaded.volume.geometry)


def _filled(words: WordArray, face: BoolArray, pixels: PixelFormat, fill_hu: float) -> WordArray:
    where = face & ~padding_mask(words, pixels)
    if not where.any():
        return words
    value = fill_stored_value(pixels, fill_hu)
    darkest_hu = value * pixels.slope + pixels.intercept
    if darkest_hu > HIGHEST_FILL_HU:
        raise UnsupportedObject(
            f"the stored integers reach no lower than {darkest_hu:.0f} HU; at most "
            f"{HIGHEST_FILL_HU} HU is required, to hold air: export the series with its full range"
        )
    return with_stored_value(words, value, where, pixels)
