"""What the physics of a scanner adds: blur, noise, streaks, an incomplete field of view."""

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
    """How an image is disturbed.

    Attributes:
        blur_mm: standard deviation of the kernel in the slice.
        noise_hu: standard deviation of the noise.
        grain_mm: size of the noise's grains in the slice; 0 for white noise.
        streak_hu: strength of the streaks from metal; 0 for none.
        streak_from: patient mm where the metal is.
        starved_hu: strength of the horizontal streaks at the height of the shoulders.
        round_field: air outside the round field of view is not measured.
        through_slices: noise hangs together from slice to slice as well.
    """

    blur_mm: float = 0.6
    noise_hu: float = 6.0
    grain_mm: float = 0.0
    streak_hu: float = 0.0
    streak_from: tuple[float, float, float] = (0.0, -58.0, -48.0)
    starved_hu: float = 0.0
    round_field: bool = False
    through_slices: bool = False


def disturbed(head: Phantom, how: Disturbance, chance: np.random.Generator) -> Phantom:
    """Blur a scanned head, add noise and streaks, and cut its field of view."""
    geometry = head.volume.geometry
    _, row_mm, column_mm = geometry.spacing_mm
    blur = (0.0, how.blur_mm / row_mm, how.blur_mm / column_mm)
    hu = (
        ndimage.gaussian_filter(head.volume.hu, blur, output=np.float32)
        if how.blur_mm
        else head.volume.hu.copy()
    )
    hu += _noise(hu.shape, how, (row_mm, column_mm), chance)
    x, y, z = points(geometry)
    if how.streak_hu:
        hu += _streaks(
            x - how.streak_from[0], y - how.streak_from[1], z - how.streak_from[2], chance
        ) * np.float32(how.streak_hu)
    if how.starved_hu:
        lines = chance.standard_normal((*hu.shape[:2], 1), dtype=np.float32)
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
    chance: np.random.Generator,
) -> HuArray:
    noise = chance.standard_normal(shape, dtype=np.float32)
    if how.grain_mm:
        sigma = (
            0.7 if how.through_slices else 0.0,
            how.grain_mm / pixel_mm[0],
            how.grain_mm / pixel_mm[1],
        )
        noise = ndimage.gaussian_filter(noise, sigma, output=np.float32)
        noise /= max(float(noise.std()), 1e-6)
    return np.asarray(noise * np.float32(how.noise_hu), dtype=np.float32)


def _streaks(x: HuArray, y: HuArray, z: HuArray, chance: np.random.Generator) -> FloatArray:
    """Rays from the metal, strongest near it, in the few slices that hold it."""
    around, distance = np.arctan2(x, -y), np.hypot(x, y)
    waves = [
        np.cos(count * around + phase)
        for count, phase in zip(chance.integers(5, 20, 3), chance.uniform(0, 6.28, 3), strict=True)
    ]
    near = np.exp(-distance / chance.uniform(20, 50)) * np.exp(-((z / STREAK_HEIGHT_MM) ** 2))
    return np.asarray(sum(waves) * near, dtype=np.float64)
