"""Volumes with more than one head, or with the mask of a face.

Only the first head has labels: the others are what a segmenter would overlook.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU, DENSE_BONE_HU, SKIN_HU
from ctdeface_worker.phantom.build import build
from ctdeface_worker.phantom.head import HIGHEST_HU, LOWEST_HU, NOISE_HU, Phantom, model
from ctdeface_worker.phantom.scan import Scan, geometry_of, points, rotation, sampled
from ctdeface_worker.phantom.shapes import Point

MODEL_MM = (2.0, 2.0, 2.0)
REACH_MM = (-124.0, 146.0)
MASK_LEVELS_MM = (-108.0, 70.0)
"""Heights above the ear canals that a mask covers, from below the chin to the forehead."""
MASK_BACK_MM = -25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something is in the volume.

    Attributes:
        at_mm: patient position (x, y, z) of its origin.
        turn_degrees: yaw, pitch and roll as in `Scan`.
        size: factor of all lengths.
    """

    at_mm: Point
    turn_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size: float = 1.0


def a_head(seed: int = 1, *, soft_tissue: bool = True) -> Phantom:
    """Return a head without noise; a bare skull without soft tissue."""
    return model(build(seed), spacing_mm=MODEL_MM, reach_mm=REACH_MM, soft_tissue=soft_tissue)


def childlike(head: Phantom) -> Phantom:
    """Return the head with the weaker bone of an infant."""
    hu = head.volume.hu
    return _with(head, np.where(hu > DENSE_BONE_HU, DENSE_BONE_HU + (hu - DENSE_BONE_HU) / 2, hu))


def cast(head: Phantom, *, hu: float) -> Phantom:
    """Return the head as one solid material, such as plastic."""
    return _with(head, np.where(head.volume.hu > SKIN_HU, hu, AIR_HU))


def mask_of(head: Phantom, *, hu: float, thick_mm: float = 4.0) -> Phantom:
    """Return the thin shell of a face.

    Args:
        head: whose face it is.
        hu: value of the material.
        thick_mm: thickness; a solid relief of the face with a large one.
    """
    tissue = head.volume.hu > SKIN_HU
    _, y, z = points(head.volume.geometry)
    low, high = MASK_LEVELS_MM
    depth = ndimage.distance_transform_edt(tissue, sampling=head.volume.geometry.spacing_mm)
    first = np.where(tissue.any(axis=1), tissue.argmax(axis=1), tissue.shape[1])
    row_mm = head.volume.geometry.spacing_mm[1]
    behind = (np.arange(tissue.shape[1])[:, None] - first[:, None, :]) * row_mm
    shell = tissue & (depth <= thick_mm) & (behind <= 3 * thick_mm)
    shell &= (z > low) & (z < high) & (y < MASK_BACK_MM)
    return _with(head, np.where(shell, hu, AIR_HU))


def together(
    head: Phantom, others: Sequence[tuple[Phantom, Place]], scan: Scan, *, table_mm: float | None
) -> Phantom:
    """Scan a head in company, with noise.

    Args:
        head: the head with labels, unmoved.
        others: what else is in view, and where.
        scan: field of view and spacing.
        table_mm: patient y of a flat table, None for none.
    """
    geometry = geometry_of(scan)
    x, y, z = np.broadcast_arrays(*points(geometry))
    at = np.stack([x, y, z], axis=-1).astype(np.float64)
    hu = _seen(head, at, Place(at_mm=(0.0, 0.0, 0.0)))
    for other, place in others:
        hu = np.maximum(hu, _seen(other, at, place))
    if table_mm is not None:
        hu = np.where(np.abs(y - table_mm) < 3, np.maximum(hu, 60.0), hu)
    hu += np.random.default_rng(head.seed).standard_normal(hu.shape) * NOISE_HU
    volume = Volume(
        hu=np.clip(hu, LOWEST_HU, HIGHEST_HU).astype(np.float32),
        valid=np.ones(hu.shape, dtype=bool),
        geometry=geometry,
    )
    return replace(
        head, volume=volume, face=_label(head, head.face, at), brain=_label(head, head.brain, at)
    )


def _seen(thing: Phantom, at: FloatArray, place: Place) -> HuArray:
    """Return the values of a thing at patient positions, air outside its grid."""
    turned = Scan(turn_degrees=place.turn_degrees)
    inside = (at - np.array(place.at_mm)) @ rotation(turned).as_matrix() / place.size
    return sampled(thing, thing.volume.hu - np.float32(AIR_HU), inside) + np.float32(AIR_HU)


def _label(head: Phantom, label: BoolArray, at: FloatArray) -> BoolArray:
    return np.asarray(sampled(head, label.astype(np.float32), at) >= 0.5, dtype=bool)


def _with(head: Phantom, hu: HuArray) -> Phantom:
    volume = Volume(
        hu=np.asarray(hu, dtype=np.float32), valid=head.volume.valid, geometry=head.volume.geometry
    )
    return replace(head, volume=volume)
