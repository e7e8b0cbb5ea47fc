"""Load a series as a volume in HU."""

from dataclasses import dataclass

import numpy as np

from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.options import HIGHEST_FILL_HU
from ctdeface_worker.dicom.layout import parse
from ctdeface_worker.dicom.limits import USUAL_LIMITS, ReadLimits
from ctdeface_worker.dicom.padding import with_plain_padding
from ctdeface_worker.dicom.pixels import (
    WordArray,
    check_pixels,
    decode,
    padding_mask,
    stored_values,
)
from ctdeface_worker.dicom.stacks import same_positions
from ctdeface_worker.imaging.domain import (
    BoolArray,
    Geometry,
    HuArray,
    Instance,
    Series,
    Volume,
    read_only,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSeries:
    """A series with its pixels.

    Attributes:
        series: the source; padding that could draw something is no longer declared.
        volume: in HU, one slice per position.
        stored: per instance (not per slice) the 16-bit words of its pixel data, (row, column),
            read-only.
        slice_of: per instance the number of its slice in the volume; instances with equal pixels
            share a slice.
    """

    series: Series
    volume: Volume
    stored: tuple[WordArray, ...]
    slice_of: tuple[int, ...]


def load(series: Series, limits: ReadLimits = USUAL_LIMITS) -> LoadedSeries:
    """Decode all instances and build the volume.

    Raises:
        TooLarge: an image or the volume is too large; checked before anything is decoded.
        UnreadableInstance: pixel data are truncated, too long or damaged.
        UnsupportedTransferSyntax: the pixel data cannot be decoded.
        UnsupportedObject: unused bits or padding could hide another picture.
    """
    slices = same_positions(series.instances)
    _require_room(series, len(slices), limits)
    slice_of = {number: k for k, numbers in enumerate(slices) for number in numbers}
    stored = tuple(_decoded(instance) for instance in series.instances)
    series = with_plain_padding(series, stored, HIGHEST_FILL_HU)
    first = [numbers[0] for numbers in slices]
    geometry = _geometry([series.instances[number] for number in first])
    hu: HuArray = np.empty(geometry.shape, dtype=np.float32)
    valid: BoolArray = np.empty(geometry.shape, dtype=bool)
    for k, number in enumerate(first):
        pixels = series.instances[number].pixels
        np.multiply(stored_values(stored[number], pixels), np.float32(pixels.slope), out=hu[k])
        hu[k] += np.float32(pixels.intercept)
        np.logical_not(padding_mask(stored[number], pixels), out=valid[k])
    volume = Volume(hu=hu, valid=valid, geometry=geometry)
    return LoadedSeries(
        series=series,
        volume=volume,
        stored=stored,
        slice_of=tuple(slice_of[n] for n in range(len(stored))),
    )


def _require_room(series: Series, slices: int, limits: ReadLimits) -> None:
    """Check the size that the headers announce; all instances have the same matrix.

    Raises:
        TooLarge: an image or the volume is too large.
    """
    first = series.instances[0]
    image = (first.pixels.rows, first.pixels.columns)
    limits.check_pixels(first.file, *image)
    limits.check_volume(image, len(series.instances), slices)


def _decoded(instance: Instance) -> WordArray:
    try:
        words = decode(parse(instance.content), instance.pixels)
        check_pixels(words, instance.pixels, HIGHEST_FILL_HU)
    except PermanentError as error:
        raise type(error)(f"{instance.file}: {error}") from error
    read_only(words)
    return words


def _geometry(instances: list[Instance]) -> Geometry:
    """Return the geometry of slices ordered along their normal."""
    placement = instances[0].placement
    along_row = np.array(placement.orientation[:3])
    down_column = np.array(placement.orientation[3:])
    return Geometry(
        shape=(len(instances), instances[0].pixels.rows, instances[0].pixels.columns),
        row_step_lps=down_column / np.linalg.norm(down_column) * placement.pixel_spacing_mm[0],
        column_step_lps=along_row / np.linalg.norm(along_row) * placement.pixel_spacing_mm[1],
        slice_origins_lps=np.array([instance.placement.position for instance in instances]),
        frame_of_reference_uid=placement.frame_of_reference_uid,
    )
