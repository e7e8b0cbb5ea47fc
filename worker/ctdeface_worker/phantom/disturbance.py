"""Artifacts of a scanner: blur, noise, streaks, an incomplete field of view."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import FloatArray, HuArray, Volume
from ctdeface_worker.phantom.head import HIGHEST_HU, LOWEST_HU, Phantom
from ctdeface_worker.phantom.scan import points

STREAK_HEIGHT_MM = 9.0
SHOULDER_MM = -110.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Strength of each artifact.

    Attributes:
        blur_mm: standard deviation of the kernel in the slice.
        noise_hu: standard deviation of the noise.
        grain_mm: size of the noise's grain in the slice, 0 for white noise.
        streak_hu: strength of the streaks from metal, 0 for none.
        streak_from: position of the metal in patient mm.
        starved_hu: strength of the photon starvation streaks at shoulder height.
        round_field: whether voxels outside the round field of view are invalid.
        through_slices: whether noise is correlated between slices as well.
    """

    blur_mm: float = 0.6
    noise_hu: float = 6.0
    grain_mm: float = 0.0
    streak_hu: float = 0.0
    streak_from: tuple[float, float, float] = (0.0, -58.0, -48.0)
    starved_hu: float = 0.0
    round_field: bool = False
    through_slices: bool = False


def disturbed(head: Phantom, how: Disturbance, rng: np.random.Generator) -> Phantom:
    """Add blur, noise and streaks, and limit the field of view."""
    geometry = head.volume.geometry
    _, row_mm, column_mm = geometry.spacing_mm
    blur = (0.0, how.blur_mm / row_mm, how.blur_mm / column_mm)
    hu = head.volume.hu.copy()
    if how.blur_mm:
        hu = ndimage.gaussian_filter(hu, blur, output=np.float32)
    hu += _noise(hu.shape, how, (row_mm, column_mm), rng)
    x, y, z = points(geometry)
    if how.streak_hu:
        metal = how.streak_from
        streaks = _streaks(x - metal[0], y - metal[1], z - metal[2], rng)
        hu += streaks * np.float32(how.streak_hu)
    if how.starved_hu:
        lines = rng.standard_normal((*hu.shape[:2], 1), dtype=np.float32)
        hu += how.starved_hu * lines * np.clip((SHOULDER_MM - z) / 30, 0, 1)
    valid = head.volume.valid
    if how.round_field:
        rows, columns = (np.arange(n) - (n - 1) / 2 for n in hu.shape[1:])
        away = np.hypot(rows[:, None] * row_mm, columns * column_mm)
        valid = valid & (away <= max(hu.shape[1] * row_mm, hu.shape[2] * column_mm) / 2)[None]
    limited = np.where(valid, np.clip(hu, LOWEST_HU, HIGHEST_HU), np.float32(LOWEST_HU))
    return Phantom(
        seed=head.seed,
        volume=Volume(hu=np.asarray(limited, dtype=np.float32), valid=valid, geometry=geometry),
        face=head.face & valid,
        brain=head.brain & valid,
    )


def _noise(
    shape: tuple[int, ...],
    how: Disturbance,
    pixel_mm: tuple[float, float],
    rng: np.random.Generator,
) -> HuArray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if how.grain_mm:
        through = 0.7 if how.through_slices else 0.0
        sigma = (through, how.grain_mm / pixel_mm[0], how.grain_mm / pixel_mm[1])
        noise = ndimage.gaussian_filter(noise, sigma, output=np.float32)
        noise /= max(float(noise.std()), 1e-6)
    return np.asarray(noise * np.float32(how.noise_hu), dtype=np.float32)


def _streaks(x: HuArray, y: HuArray, z: HuArray, rng: np.random.Generator) -> FloatArray:
    """Return streaks of metal, strongest near it and in its slices."""
    around, distance = np.arctan2(x, -y), np.hypot(x, y)
    waves = [
        np.cos(count * around + phase)
        for count, phase in zip(rng.integers(5, 20, 3), rng.uniform(0, 6.28, 3), strict=True)
    ]
    near = np.exp(-distance / rng.uniform(20, 50)) * np.exp(-((z / STREAK_HEIGHT_MM) ** 2))
    return np.asarray(sum(waves) * near, dtype=np.float64)
