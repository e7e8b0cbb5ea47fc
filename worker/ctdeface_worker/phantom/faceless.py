"""Synthetic CT without a head: torso, water phantom, air."""

import numpy as np

from ctdeface_worker.imaging.domain import Geometry, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU

SPACING_MM = (4.0, 3.0, 3.0)
SHAPE = (60, 100, 128)


def torso(*, lungs: bool) -> Volume:
    """Return a chest or an abdomen on a couch.

    Args:
        lungs: True for a chest with lungs, False for an abdomen with gas in the bowel.
    """
    z, y, x = _axes()
    hu = np.full(SHAPE, AIR_HU, dtype=np.float32)
    body = np.hypot(x / 165, y / 115)
    hu[np.broadcast_to(body < 1, SHAPE)] = -80
    hu[np.broadcast_to(body < 0.93, SHAPE)] = 50
    ribs = (np.abs(body - 0.88) < 0.035) & (np.cos(2 * np.pi * (z - 0.5 * y) / 30) > 0.2)
    hu[np.broadcast_to(ribs, SHAPE)] = 500
    inside = (
        np.hypot((np.abs(x) - 75) / 55, (y + 5) / 70) < 1
        if lungs
        else np.hypot(x / 60, (y + 60) / 25) < 0.6 + 0.3 * np.cos(z / 20)
    )
    hu[np.broadcast_to(inside, SHAPE)] = -850 if lungs else -950
    spine = np.hypot(x / 24, (y - 60) / 22) < 1
    canal = np.hypot(x / 10, (y - 75) / 9) < 1
    hu[np.broadcast_to(spine, SHAPE)] = 450
    hu[np.broadcast_to(canal, SHAPE)] = 30
    hu[np.broadcast_to(np.abs(y - 130) < 4, SHAPE)] = 100
    return _volume(hu)


def water_cylinder() -> Volume:
    """Return a phantom for quality control: water in an acrylic wall."""
    _, y, x = _axes()
    hu = np.full(SHAPE, AIR_HU, dtype=np.float32)
    away = np.hypot(x, y)
    hu[np.broadcast_to(away < 106, SHAPE)] = 120
    hu[np.broadcast_to(away < 100, SHAPE)] = 0
    return _volume(hu)


def empty_air() -> Volume:
    """Return a scan of air alone."""
    return _volume(np.full(SHAPE, AIR_HU, dtype=np.float32))


def _axes() -> tuple[HuArray, HuArray, HuArray]:
    z, y, x = (
        ((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32)
        for n, mm in zip(SHAPE, SPACING_MM, strict=True)
    )
    return z[:, None, None], y[None, :, None], x[None, None, :]


def _volume(hu: HuArray) -> Volume:
    noisy = hu + np.random.default_rng(1).standard_normal(hu.shape, dtype=np.float32) * 6
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING_MM
    affine[3, 3] = 1
    affine[:3, 3] = [-mm * (n - 1) / 2 for n, mm in zip(SHAPE[::-1], SPACING_MM[::-1], strict=True)]
    return Volume(
        hu=noisy.astype(np.float32),
        valid=np.ones(SHAPE, dtype=bool),
        geometry=Geometry.from_affine(SHAPE, affine),
    )
