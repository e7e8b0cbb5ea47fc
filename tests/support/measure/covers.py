"""Cloths in front of a face, and masks that remove them but not the face."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, Geometry, Volume

TISSUE_HU = -300.0
CLOTH_HU = 60.0
JOINED_VOXELS = 4
"""So far beside the mask a hung cloth meets the head."""
MIDDLE_MM = 20.0
"""To either side of the nose, above and below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A volume seen from the front.

    Attributes:
        axis: stored axis that runs along y.
        depth: voxels from the front of the image.
        skin: depth of the first tissue; beyond the image where there is none.
    """

    axis: int
    depth: NDArray[np.intp]
    skin: NDArray[np.intp]

    def behind_skin(self, voxels: int = 0) -> BoolArray:
        """What lies at least so far behind the first tissue."""
        return np.asarray(self.depth >= self.skin + voxels)


def front_of(volume: Volume) -> Front:
    """Return the front view; the stored axes must be the patient's, except for a tilt."""
    steps = steps_lps(volume.geometry)
    axis = next(each for each in range(3) if np.abs(steps[each]).argmax() == 1)
    count = volume.hu.shape[axis]
    order = np.arange(count) if steps[axis][1] > 0 else np.arange(count)[::-1]
    depth = order.reshape([-1 if each == axis else 1 for each in range(3)])
    skin = np.where(volume.hu > TISSUE_HU, depth, count).min(axis=axis, keepdims=True)
    return Front(axis=axis, depth=depth, skin=skin)


def steps_lps(
    geometry: Geometry,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps from slice to slice, row to row and column to column, LPS mm."""
    return (
        geometry.normal_lps * geometry.spacing_mm[0],
        geometry.row_step_lps,
        geometry.column_step_lps,
    )


def draped(volume: Volume, face: BoolArray, *, gap: int, thick: int) -> tuple[Volume, BoolArray]:
    """Lay a cloth over a face, so many voxels before it.

    Returns:
        The volume with it, and its right mask: face, cloth, and the air before the skin.
    """
    front = front_of(volume)
    skin = ndimage.minimum_filter(front.skin, size=3) if gap else front.skin
    cloth = (front.depth >= skin - gap - thick) & (front.depth < skin - gap)
    return _with(volume, face, front, cloth & face.any(axis=front.axis, keepdims=True))


def hung(volume: Volume, face: BoolArray, *, gap: int, thick: int) -> tuple[Volume, BoolArray]:
    """Add a flat cloth in front of the nose, connected to the head beside the mask."""
    front = front_of(volume)
    columns: BoolArray = np.asarray(face.any(axis=front.axis, keepdims=True))
    first = front.skin[columns].min() - gap - thick
    around = np.ones([1 if axis == front.axis else 3 for axis in range(3)], dtype=bool)
    wide = ndimage.binary_dilation(columns, around, iterations=JOINED_VOXELS)
    flat = front.depth < first + thick
    return _with(
        volume,
        face,
        front,
        (front.depth >= first) & (front.depth < front.skin) & wide & (flat | ~columns),
    )


def under_cover(
    volume: Volume, face: BoolArray, right: BoolArray
) -> Iterator[tuple[str, BoolArray]]:
    """Yield masks that remove the cover and leave skin behind it."""
    skin = front_of(volume).behind_skin()
    z = np.arange(face.shape[0])[:, None, None]
    levels = np.flatnonzero(face.any(axis=(1, 2)))
    upper = z > (levels[0] + levels[-1]) / 2
    yield "the face stays", right & ~skin
    yield "its middle stays", right & ~(skin & middle(volume, face))
    yield "one half of its slices stays", right & ~(skin & upper)
    yield "the other half stays", right & ~(skin & ~upper)


def middle(volume: Volume, face: BoolArray) -> BoolArray:
    """Return what of a mask lies about the foremost point of the face, as seen from the front."""
    out: BoolArray = np.zeros_like(face)
    out[face] = (
        np.abs(points_lps(volume, face) - foremost_lps(volume, face))[:, [0, 2]] <= MIDDLE_MM
    ).all(axis=1)
    return out


def points_lps(volume: Volume, voxels: BoolArray) -> NDArray[np.float64]:
    """Positions (n, 3) of voxels, LPS mm."""
    k, i, j = np.nonzero(voxels)
    g = volume.geometry
    return np.asarray(
        g.slice_origins_lps[k] + i[:, None] * g.row_step_lps + j[:, None] * g.column_step_lps,
        dtype=np.float64,
    )


def foremost_lps(volume: Volume, face: BoolArray) -> NDArray[np.float64]:
    """Position of the foremost tissue of a mask, LPS mm."""
    points = points_lps(volume, face & (volume.hu > TISSUE_HU))
    return np.asarray(points[points[:, 1].argmin()], dtype=np.float64)


def _with(
    volume: Volume, face: BoolArray, front: Front, cloth: BoolArray
) -> tuple[Volume, BoolArray]:
    hu = np.where(cloth & (volume.hu <= TISSUE_HU), np.float32(CLOTH_HU), volume.hu)
    before = face.any(axis=front.axis, keepdims=True) & ~front.behind_skin()
    return Volume(hu=hu, valid=volume.valid, geometry=volume.geometry), face | before
