"""Find the window of a face by the nose, the most prominent frontal skin."""

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Volume
from tests.support.measure.skin import AIR_HU, Window
from tests.support.measure.stack import box_lps, voxels_at

GRID_MM = 2.0
BESIDE_MM = 24.0
CLOSE_MM = 14.0
NOSE_MM = 30.0
LIKELY = 0.6
ABOVE_MM = 36.0
BELOW_MM = 16.0
SIDE_MM, UP_MM, DOWN_MM = 45.0, 50.0, 60.0


def window_by_nose(volume: Volume) -> Window | None:
    """Return the window around the tip of the nose, None without a nose."""
    low, high = box_lps(volume.geometry)
    x, z = (np.arange(low[i], high[i], GRID_MM) for i in (0, 2))
    tip = _tip(_front_y(volume, x, z))
    if tip is None:
        return None
    row, column, y = tip
    return Window(
        right_x=max(float(x[column]) - SIDE_MM, float(low[0])),
        left_x=min(float(x[column]) + SIDE_MM, float(high[0])),
        chin_z=max(float(z[row]) - DOWN_MM, float(low[2])),
        brow_z=min(float(z[row]) + UP_MM, float(high[2])),
        nose_y=y,
    )


def _front_y(volume: Volume, x: FloatArray, z: FloatArray) -> FloatArray:
    """Return the first y of the largest object, (z, x); infinite without one."""
    labels, _ = ndimage.label((volume.hu > AIR_HU) & volume.valid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body: BoolArray = labels == sizes.argmax()
    low, high = box_lps(volume.geometry)
    y = np.arange(low[1], high[1], GRID_MM / 2)
    front = np.full((len(z), len(x)), np.inf)
    for row, height in enumerate(z):
        points = np.stack(np.broadcast_arrays(x[:, None], y[None, :], height), axis=-1)
        voxels = voxels_at(volume.geometry, points)
        hits = body[voxels.index] & voxels.inside
        front[row] = np.where(hits.any(axis=1), y[hits.argmax(axis=1)], np.inf)
    return front


def _tip(front: FloatArray) -> tuple[int, int, float] | None:
    """Return row, column and y of the tip of the nose."""
    smooth = np.where(
        np.isfinite(front), ndimage.median_filter(front, size=3), np.nan
    )  # beyond any skin nothing can be compared
    right, left = _shifted(smooth, 0, -BESIDE_MM) - smooth, _shifted(smooth, 0, BESIDE_MM) - smooth
    close = (
        np.minimum(_shifted(smooth, 0, -CLOSE_MM), _shifted(smooth, 0, CLOSE_MM)) - smooth
    )  # a neck falls away more slowly
    above, below = _shifted(smooth, ABOVE_MM, 0) - smooth, _shifted(smooth, -BELOW_MM, 0) - smooth
    nearer, farther = np.minimum(right, left), np.maximum(right, left)
    behind = (above > 0) & (below > 0) & np.isfinite(above + below)
    fits = behind & (close >= 5) & (nearer >= 9) & (farther <= 45) & (farther - nearer <= 18)
    if not fits.any():
        return None
    likely = fits & (nearer >= LIKELY * nearer[fits].max())
    top = np.flatnonzero(likely.any(axis=1))[
        -1
    ]  # what else stands out, such as a tube in the neck, lies below the nose
    likely[: max(top - round(NOSE_MM / GRID_MM), 0)] = False
    row, column = np.unravel_index(np.where(likely, nearer, -np.inf).argmax(), fits.shape)
    return int(row), int(column), float(smooth[row, column])


def _shifted(front: FloatArray, up_mm: float, left_mm: float) -> FloatArray:
    """Return the map shifted up and to the left; infinite outside."""
    rows, columns = round(up_mm / GRID_MM), round(left_mm / GRID_MM)
    moved = ndimage.shift(
        np.where(np.isfinite(front), front, 1e6), (-rows, -columns), order=0, cval=np.nan
    )
    return np.asarray(np.where(moved > 1e5, np.nan, moved), dtype=np.float64)
