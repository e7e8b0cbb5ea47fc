"""Resample between stored voxels and an upright grid.

Only this module converts between stored stacks and patient axes. Anatomy is found on this grid, but
the output is always edited in the stored slices, never resampled.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.domain import (
    BoolArray,
    FloatArray,
    Geometry,
    HuArray,
    Volume,
    read_only,
)
from ctdeface_worker.imaging.hounsfield import OUTSIDE_HU

GRID_MM = 2.0
"""Edge of a canonical voxel where anatomy is searched for, in mm."""
STRAIGHT = 1e-8
"""Directions with 1 - cosine below this (0.01 degrees) count as parallel to an axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonical:
    """Volume on an isotropic grid along the patient axes.

    Attributes:
        hu: float32, index (z, y, x): z rises to superior, y to posterior, x to the patient's left.
        valid: False outside the field of view and on padding.
        origin_lps: LPS mm (x, y, z) of voxel (0, 0, 0).
        spacing_mm: edge of a voxel.
    """

    hu: HuArray
    valid: BoolArray
    origin_lps: FloatArray
    spacing_mm: float

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.hu, self.valid, self.origin_lps):
            read_only(array)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Shape (z, y, x), LPS origin and spacing."""

    shape: tuple[int, int, int]
    origin_lps: FloatArray
    spacing_mm: float


def to_canonical(
    volume: Volume,
    *,
    spacing_mm: float = GRID_MM,
    within: tuple[FloatArray, FloatArray] | None = None,
) -> Canonical:
    """Resample a volume linearly to the canonical grid.

    Any orientation, gantry tilt and uneven slices are handled.

    Args:
        volume: the input.
        spacing_mm: edge of a canonical voxel.
        within: lowest and highest LPS corner in mm of the wanted part; None for the whole volume.
    """
    hu, valid, geometry = _thin_out(volume, spacing_mm)
    low, high = _bounds_lps(geometry)
    if within is not None:
        low, high = np.maximum(low, within[0]), np.minimum(high, within[1])
    count = np.maximum(np.ceil((high - low) / spacing_mm).astype(int), 1)
    grid = _Grid(
        shape=(int(count[2]), int(count[1]), int(count[0])),
        origin_lps=low + spacing_mm / 2,
        spacing_mm=spacing_mm,
    )
    sample = _sample_even if _is_even(geometry) else _sample_uneven
    out_hu, out_valid = sample(hu, valid, geometry, grid)
    out_hu[~out_valid] = OUTSIDE_HU
    return Canonical(hu=out_hu, valid=out_valid, origin_lps=grid.origin_lps, spacing_mm=spacing_mm)


def mask_to_canonical(mask: BoolArray, geometry: Geometry, *, spacing_mm: float) -> BoolArray:
    """Resample a stored mask to the canonical grid.

    A canonical voxel is True if at least half of it is; it is False outside the stack. Padding is
    ignored, so that a mask keeps its rim at the border of a field of view.
    """
    soft = Volume(
        hu=mask.astype(np.float32), valid=np.broadcast_to(np.True_, mask.shape), geometry=geometry
    )
    return np.asarray(to_canonical(soft, spacing_mm=spacing_mm).hu >= 0.5, dtype=bool)


def _is_even(geometry: Geometry) -> bool:
    """Return whether slices are even to 0.02 mm."""
    n = geometry.shape[0]
    affine = geometry.affine_lps
    fitted = affine[:3, 3] + np.arange(n)[:, None] * affine[:3, 0]
    return n > 1 and float(np.abs(fitted - geometry.slice_origins_lps).max()) < 0.02


def _sample_even(
    hu: HuArray, valid: BoolArray, geometry: Geometry, grid: _Grid
) -> tuple[HuArray, BoolArray]:
    """Resample a stack that one affine describes.

    Both images have unit spacing, so the transform maps index to index (x, y, z).
    """
    inverse = np.linalg.inv(geometry.affine_lps)
    to_stored = inverse[:3, :3][::-1] * grid.spacing_mm
    offset = (inverse @ np.append(grid.origin_lps, 1.0))[:3][::-1]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(to_stored.ravel().tolist())
    transform.SetTranslation(offset.tolist())
    rest = (grid.shape[::-1], transform)
    fixed = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), np.eye(3).ravel().tolist(), 0.0)
    # One more voxel on every side keeps the outer half voxels.
    wider = np.pad(hu, 1, mode="edge")
    if not valid.all():  # padding values must not mix with measured ones
        np.copyto(wider, np.float32(OUTSIDE_HU), where=~np.pad(valid, 1, mode="edge"))
    padded = sitk.GetImageFromArray(wider)
    padded.SetOrigin((-1.0, -1.0, -1.0))
    covered = sitk.GetImageFromArray(valid.astype(np.uint8))
    linear = sitk.GetArrayFromImage(sitk.Resample(padded, *rest, sitk.sitkLinear, *fixed))
    # The view below does not keep this image alive, so it needs a name.
    nearest = sitk.Resample(covered, *rest, sitk.sitkNearestNeighbor, *fixed)
    inside: BoolArray = sitk.GetArrayViewFromImage(nearest) > 0
    return linear, inside


def _sample_uneven(
    hu: HuArray, valid: BoolArray, geometry: Geometry, grid: _Grid
) -> tuple[HuArray, BoolArray]:
    """Resample an uneven stack plane by plane."""
    y = grid.origin_lps[1] + grid.spacing_mm * np.arange(grid.shape[1])
    x = grid.origin_lps[0] + grid.spacing_mm * np.arange(grid.shape[2])
    points_y, points_x = np.meshgrid(y, x, indexing="ij")
    out_hu: HuArray = np.full(grid.shape, OUTSIDE_HU, dtype=np.float32)
    out_valid: BoolArray = np.zeros(grid.shape, dtype=bool)
    valid_bytes = valid.astype(np.uint8)
    if not valid.all():
        hu = np.where(valid, hu, np.float32(OUTSIDE_HU))
    for k in range(grid.shape[0]):
        points = np.stack(
            [points_x, points_y, np.full_like(points_x, grid.origin_lps[2] + k * grid.spacing_mm)],
            axis=-1,
        )
        index = np.moveaxis(stored_index(geometry, points), -1, 0)
        inside = np.logical_and.reduce(
            [(index[a] >= -0.5) & (index[a] <= geometry.shape[a] - 0.5) for a in range(3)]
        )
        at = index[:, inside]
        out_hu[k][inside] = ndimage.map_coordinates(hu, at, order=1, mode="nearest")
        out_valid[k][inside] = ndimage.map_coordinates(valid_bytes, at, order=0, mode="nearest") > 0
    return out_hu, out_valid


def stored_index(geometry: Geometry, points_lps: FloatArray) -> FloatArray:
    """Return the fractional indices of LPS points in mm.

    Input and output have the shape (..., 3). Beyond the stack the end spacing continues.
    """
    positions = geometry.slice_positions_mm
    along = points_lps @ geometry.normal_lps
    k = _extrapolated(along, positions)
    base = np.stack([_at(k, geometry.slice_origins_lps[:, a]) for a in range(3)], axis=-1)
    base += ((along - _at(k, positions))[..., None]) * geometry.normal_lps
    offset = points_lps - base
    rows = offset @ geometry.row_step_lps / (geometry.row_step_lps @ geometry.row_step_lps)
    columns = (
        offset @ geometry.column_step_lps / (geometry.column_step_lps @ geometry.column_step_lps)
    )
    return np.stack([k, rows, columns], axis=-1)


def mask_to_stored(mask: BoolArray, canonical: Canonical, geometry: Geometry) -> BoolArray:
    """Resample a canonical mask to stored voxels."""
    return field_to_stored(mask.astype(np.float32), canonical, geometry)


def field_to_stored(soft: HuArray, canonical: Canonical, geometry: Geometry) -> BoolArray:
    """Return stored voxels where a field reaches 0.5.

    The field, such as a probability, is interpolated linearly.

    Args:
        soft: at each canonical voxel, 0 to 1.
        canonical: the grid.
        geometry: of the stored voxels.
    """
    out = np.zeros(geometry.shape, dtype=bool)
    mask = soft > 0
    if not mask.any():
        return out
    order = _axis_order(geometry)
    image = sitk.GetImageFromArray(soft) if order is None else None
    window = _window(mask, canonical, geometry)
    for k in range(window[0].start, window[0].stop):
        at = (k, window[1], window[2])
        if image is None:
            out[k][window[1:]] = _sample_upright(soft, canonical, geometry, at)
        else:
            out[k][window[1:]] = _sample_oblique(image, canonical, geometry, at)
    return out


def on_grid(field: HuArray, source: Canonical, target: Canonical) -> HuArray:
    """Interpolate a field linearly on another canonical grid.

    It is 0 outside the source.
    """
    out = field
    for axis in range(3):
        start = (target.origin_lps[2 - axis] - source.origin_lps[2 - axis]) / source.spacing_mm
        index = start + np.arange(target.hu.shape[axis]) * target.spacing_mm / source.spacing_mm
        out = np.moveaxis(_between(np.moveaxis(out, axis, 0), index), 0, axis)
    return out


def _axis_order(geometry: Geometry) -> tuple[int, int, int] | None:
    """Return the patient axes of the steps, or None.

    Axes (0 = x) are those of normal, row step and column step; None if they are oblique.
    """
    steps = np.abs(np.stack([geometry.normal_lps, geometry.row_step_lps, geometry.column_step_lps]))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    if steps.max(axis=1).min() < 1 - STRAIGHT:
        return None
    normal, row, column = (int(axis) for axis in steps.argmax(axis=1))
    return (normal, row, column)


def _sample_upright(
    soft: HuArray, canonical: Canonical, geometry: Geometry, at: tuple[int, slice, slice]
) -> BoolArray:
    """Return the mask in a window of an upright slice."""
    k, rows, columns = at
    normal, row, column = order = _axis_order(geometry) or (2, 1, 0)
    start = (geometry.slice_origins_lps[k] - canonical.origin_lps) / canonical.spacing_mm
    down = (
        start[row]
        + np.arange(rows.start, rows.stop) * geometry.row_step_lps[row] / canonical.spacing_mm
    )
    across = (
        start[column]
        + np.arange(columns.start, columns.stop)
        * geometry.column_step_lps[column]
        / canonical.spacing_mm
    )
    plane = _between(soft.transpose([2 - axis for axis in order]), np.array([start[normal]]))[0]
    return np.asarray(_between(_between(plane, down).T, across).T >= 0.5, dtype=bool)


def _between(field: HuArray, index: FloatArray) -> HuArray:
    """Interpolate linearly along the first axis, 0 outside."""
    last = field.shape[0] - 1
    low = np.clip(np.floor(index).astype(int), 0, max(last - 1, 0))
    weight = np.clip(index - low, 0, 1).astype(np.float32).reshape(-1, *(1,) * (field.ndim - 1))
    below = field[low]
    mixed: HuArray = below + weight * (field[np.minimum(low + 1, last)] - below)
    mixed[(index < -0.5) | (index >= last + 0.5)] = 0
    return mixed


def _sample_oblique(
    image: sitk.Image, canonical: Canonical, geometry: Geometry, at: tuple[int, slice, slice]
) -> BoolArray:
    """Return the mask in a window of an oblique slice.

    Both images have unit spacing, so the transform maps index to index (x, y, z).
    """
    k, rows, columns = at
    corner = (
        geometry.slice_origins_lps[k]
        + rows.start * geometry.row_step_lps
        + columns.start * geometry.column_step_lps
    )
    matrix = (
        np.stack([geometry.column_step_lps, geometry.row_step_lps, geometry.normal_lps], axis=1)
        / canonical.spacing_mm
    )
    to_mask = sitk.AffineTransform(3)
    to_mask.SetMatrix(matrix.ravel().tolist())
    to_mask.SetTranslation(((corner - canonical.origin_lps) / canonical.spacing_mm).tolist())
    size = (columns.stop - columns.start, rows.stop - rows.start, 1)
    sampled = sitk.Resample(
        image,
        size,
        to_mask,
        sitk.sitkLinear,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        0.0,
    )
    half: BoolArray = sitk.GetArrayViewFromImage(sampled)[0] >= 0.5
    return half


def _window(
    mask: BoolArray, canonical: Canonical, geometry: Geometry
) -> tuple[slice, slice, slice]:
    """Return the stored window that a mask can reach."""
    spans = [
        np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)
    ]
    ends = [(span[0] - 1, span[-1] + 1) for span in spans]
    corners = np.stack(np.meshgrid(ends[2], ends[1], ends[0]), axis=-1).reshape(-1, 3)
    index = stored_index(geometry, canonical.origin_lps + corners * canonical.spacing_mm)
    # Uneven slices bend the map between corners, so one voxel is added on each side.
    low = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, None)
    high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 2, geometry.shape)
    return (
        slice(int(low[0]), int(high[0])),
        slice(int(low[1]), int(high[1])),
        slice(int(low[2]), int(high[2])),
    )


def _extrapolated(along: FloatArray, positions: FloatArray) -> FloatArray:
    """Return the fractional slice numbers of positions.

    Beyond the stack the end spacing continues.
    """
    n = positions.size
    k = np.interp(along, positions, np.arange(n, dtype=np.float64))
    first = positions[1] - positions[0] if n > 1 else 1.0
    last = positions[-1] - positions[-2] if n > 1 else 1.0
    k = np.where(along < positions[0], (along - positions[0]) / first, k)
    return np.asarray(np.where(along > positions[-1], n - 1 + (along - positions[-1]) / last, k))


def _at(k: FloatArray, values: NDArray[np.float64]) -> FloatArray:
    """Interpolate per-slice values at fractional slice numbers.

    Beyond the stack the end steps continue.
    """
    n = values.size
    if n == 1:
        return np.full(k.shape, values[0])
    low = np.clip(np.floor(k).astype(int), 0, n - 2)
    return np.asarray(values[low] + (k - low) * (values[low + 1] - values[low]))


def _bounds_lps(geometry: Geometry) -> tuple[FloatArray, FloatArray]:
    """Return the LPS bounding box of the stack."""
    rows, columns = geometry.shape[1:]
    in_plane = [
        r * geometry.row_step_lps + c * geometry.column_step_lps
        for r in (-0.5, rows - 0.5)
        for c in (-0.5, columns - 0.5)
    ]
    half = geometry.normal_lps * geometry.spacing_mm[0] / 2
    ends = np.concatenate([geometry.slice_origins_lps - half, geometry.slice_origins_lps + half])
    corners = (ends[:, None, :] + np.stack(in_plane)[None]).reshape(-1, 3)
    return corners.min(axis=0), corners.max(axis=0)


def _thin_out(volume: Volume, spacing_mm: float) -> tuple[HuArray, BoolArray, Geometry]:
    """Average pixels that are finer than the grid.

    This prevents aliasing and saves time.
    """
    _, row_mm, column_mm = volume.geometry.spacing_mm
    by = (max(int(spacing_mm / row_mm + 1e-6), 1), max(int(spacing_mm / column_mm + 1e-6), 1))
    if by == (1, 1):
        return volume.hu, volume.valid, volume.geometry
    n, rows, columns = volume.geometry.shape
    kept = (rows // by[0], columns // by[1])
    cut = (slice(None), slice(kept[0] * by[0]), slice(kept[1] * by[1]))
    known = volume.valid[cut]
    all_known = bool(known.all())
    source = (
        volume.hu[cut] if all_known else np.where(known, volume.hu[cut], np.float32(OUTSIDE_HU))
    )
    hu: HuArray = np.zeros((n, *kept), dtype=np.float32)
    valid: BoolArray = np.ones((n, *kept), dtype=bool)
    for row in range(by[0]):
        for column in range(by[1]):
            hu += source[:, row :: by[0], column :: by[1]]
            if not all_known:
                valid &= known[:, row :: by[0], column :: by[1]]
    hu /= np.float32(by[0] * by[1])
    g = volume.geometry
    shift = (by[0] - 1) / 2 * g.row_step_lps + (by[1] - 1) / 2 * g.column_step_lps
    thinned = Geometry(
        shape=(n, *kept),
        row_step_lps=g.row_step_lps * by[0],
        column_step_lps=g.column_step_lps * by[1],
        slice_origins_lps=g.slice_origins_lps + shift,
        frame_of_reference_uid=g.frame_of_reference_uid,
    )
    return hu, valid, thinned
