"""Shaded renders of the skin from several sides.

Renders of the volume before defacing show the patient.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.canonical import Canonical, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU, SKIN_HU

RENDER_GRID_MM = 1.5
BLUR_VOXELS = 0.6
DEPTH_BLUR_VOXELS = 0.5
SMALLEST_PIECE = 0.01
"""Share of the tissue; smaller pieces are noise and would hide the surface behind."""
VIEWS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "front": (0.0, 0.0),
        "yaw+30": (30.0, 0.0),
        "yaw-30": (-30.0, 0.0),
        "pitch+20": (0.0, 20.0),
        "pitch-20": (0.0, -20.0),
    }
)
"""Yaw to the patient's left and pitch with the chin up, in degrees."""
AMBIENT = 0.12
PIXELS_PER_VOXEL = 2

Picture = NDArray[np.uint8]


def renders(volume: Volume) -> dict[str, Picture]:
    """Render a volume from every view.

    Rows run downward, columns to the patient's left.
    """
    body = _body(to_canonical(volume, spacing_mm=RENDER_GRID_MM))
    return {name: shaded(_turned(body, yaw, pitch).hu) for name, (yaw, pitch) in VIEWS.items()}


def shaded(hu: HuArray) -> Picture:
    """Shade the first surface seen from the front.

    Args:
        hu: index (z, y, x), superior, posterior, left.
    """
    hit, depth = _first_crossing(hu)
    smooth = ndimage.gaussian_filter(depth, DEPTH_BLUR_VOXELS)
    fine = ndimage.zoom(smooth, PIXELS_PER_VOXEL, order=1)
    visible = ndimage.zoom(hit.astype(np.float32), PIXELS_PER_VOXEL, order=1) >= 0.5
    steep = PIXELS_PER_VOXEL * np.hypot(*np.gradient(fine))
    light = AMBIENT + (1 - AMBIENT) / np.sqrt(1 + steep**2)
    return np.asarray(np.where(visible, 255 * light, 0)[::-1], dtype=np.uint8)


def _turned(body: Volume, yaw: float, pitch: float) -> Canonical:
    """Rotate a head about its middle.

    Degrees of yaw are to the patient's left, degrees of pitch lift the chin.
    """
    turn = Rotation.from_euler("zx", [yaw, -pitch], degrees=True)
    geometry = body.geometry
    middle = geometry.affine_lps @ np.append((np.array(geometry.shape) - 1) / 2, 1.0)
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() @ geometry.affine_lps[:3, :3]
    affine[:3, 3] = turn.apply(geometry.affine_lps[:3, 3] - middle[:3]) + middle[:3]
    return to_canonical(
        Volume(hu=body.hu, valid=body.valid, geometry=Geometry.from_affine(geometry.shape, affine)),
        spacing_mm=RENDER_GRID_MM,
    )


def _first_crossing(hu: HuArray) -> tuple[BoolArray, FloatArray]:
    """Return hits per ray and their subvoxel depth."""
    solid = hu > SKIN_HU
    hit: BoolArray = np.asarray(solid.any(axis=1), dtype=np.bool_)
    at = solid.argmax(axis=1)[:, None, :]
    inside, before = (
        np.take_along_axis(hu, index, axis=1)[:, 0].astype(np.float64)
        for index in (at, np.maximum(at - 1, 0))
    )
    part = np.clip((inside - SKIN_HU) / np.maximum(inside - before, 1.0), 0, 1)
    return hit, np.where(hit, at[:, 0] - part, hu.shape[1])


def _body(canonical: Canonical) -> Volume:
    """Crop to the body and remove noise."""
    hu = np.where(canonical.valid, canonical.hu, np.float32(AIR_HU))
    labels, count = ndimage.label(hu > SKIN_HU)
    sizes = np.bincount(labels.ravel(), minlength=2)
    sizes[0] = 0
    kept: BoolArray = (sizes >= SMALLEST_PIECE * max(sizes.sum(), 1))[labels] & (labels > 0)
    near = morphology.grown(kept, 2)
    hu = np.where(near | (hu <= SKIN_HU), hu, np.float32(AIR_HU))
    hu = ndimage.gaussian_filter(hu, BLUR_VOXELS)
    place = ndimage.find_objects(near.astype(np.uint8))[0] if count else (slice(None),) * 3
    part = hu[place].astype(np.float32)
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = canonical.spacing_mm
    affine[:, 3] = 1.0
    everywhere = np.ones(part.shape, dtype=np.bool_)
    return Volume(
        hu=part,
        valid=everywhere,
        geometry=Geometry.from_affine((part.shape[0], part.shape[1], part.shape[2]), affine),
    )
