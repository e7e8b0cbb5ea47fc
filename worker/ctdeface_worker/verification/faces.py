"""Find the relief of a further face on any surface in view.

A part of a surface resembles a face as far as its heights correlate with those of a face, in each
half of it, and are symmetric. The examined head is left out, because other checks judge it;
docs/trust/gate.md gives the figures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry
from ctdeface_worker.verification.check import Check, at_most, percent
from ctdeface_worker.verification.face_pattern import FacePattern, alike, patterns
from ctdeface_worker.verification.location import place_of_points
from ctdeface_worker.verification.surfaces import PIXEL_MM, SurfaceMap, head_box, surface_maps

MOST_ALIKE = 0.28
"""Largest resemblance of anything in view but the examined head.

Of 152 real volumes the largest is 0.22, a shoulder; of masks and casts the smallest is 0.36.
"""
LEAST_SEEN = 0.9
"""Share of the compared part that must be a surface in view, not the examined head."""
HEIGHT = (0.55, 1.35)
"""Range of the heights, relative to an average face."""
LEAST_CORRELATION = 0.5
CANDIDATES = 6
"""Places of each map that are compared closely."""
NOISE_MM = 0.3
"""Least roughness of the compared part, so that noise on a plane resembles nothing."""
SMOOTH_MM = 3.0
"""Width of the filter that levels the steps of voxels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceLike:
    """The surface that resembles a face most, apart from the examined head.

    Attributes:
        alike: its resemblance, 0 to 1.
        at_lps: LPS mm of its middle.
        middle_mm: LPS x of the middle of the examined head.
    """

    alike: float = 0.0
    at_lps: FloatArray
    middle_mm: float


def find_face_like(canonical: Canonical, cavity: BoolArray) -> FaceLike:
    """Find the surface that resembles a face most, apart from the examined head.

    Args:
        canonical: the input, on the gate's grid.
        cavity: intracranial cavity on that grid, not empty.
    """
    head = head_box(cavity, canonical.spacing_mm)
    most, voxel = max(
        (
            (share, tuple(seen.index[:, row, column]))
            for seen in surface_maps(canonical, head)
            for pattern in patterns()
            for share, (row, column) in _candidates(seen, pattern)
        ),
        default=(0.0, (0, 0, 0)),
    )
    middle = (head[2].start + head[2].stop - 1) / 2
    return FaceLike(
        alike=most,
        at_lps=canonical.origin_lps + np.array(voxel[::-1]) * canonical.spacing_mm,
        middle_mm=float(canonical.origin_lps[0] + middle * canonical.spacing_mm),
    )


def check_one_face(found: FaceLike, geometry: Geometry) -> Check:
    """Check that nothing but the examined head resembles a face.

    Args:
        found: the surface that resembles a face most.
        geometry: of the input, to name slices.
    """
    return at_most(
        "one_face",
        found.alike,
        MOST_ALIKE,
        percent,
        "a surface apart from the examined head resembles a face by {}",
    ).located(lambda: place_of_points(found.at_lps[None], geometry, found.middle_mm))


def _candidates(seen: SurfaceMap, pattern: FacePattern) -> Iterator[tuple[float, tuple[int, int]]]:
    """Yield the resemblance of the most promising places of a map, and their pixels."""
    window = pattern.inside.shape[0]
    highest = ndimage.maximum_filter(seen.height_mm, size=window, mode="nearest")
    lowest = highest - pattern.depth_mm
    surface = seen.further & (seen.height_mm > lowest)
    if surface.sum() < LEAST_SEEN * pattern.inside.sum():
        return
    rows, columns = (
        _around(np.flatnonzero(surface.any(axis=axis)), window // 2) for axis in (1, 0)
    )
    smooth = ndimage.gaussian_filter(np.maximum(seen.height_mm, lowest), SMOOTH_MM / PIXEL_MM)
    image = smooth[rows, columns] - smooth[rows, columns].mean()
    correlations = _correlations(image, surface[rows, columns], pattern)
    for turn, row, column in _peaks(correlations, window // 2):
        share = alike(image, (row, column), turn, pattern)
        yield share, (rows.start + row, columns.start + column)


def _peaks(correlations: FloatArray, apart: int) -> Iterator[tuple[int, int, int]]:
    """Yield turn, row and column of the highest correlations, some pixels apart."""
    best, turn = correlations.max(axis=0), correlations.argmax(axis=0)
    for _ in range(CANDIDATES):
        row, column = (int(each) for each in np.unravel_index(best.argmax(), best.shape))
        if best[row, column] < LEAST_CORRELATION:
            return
        yield int(turn[row, column]), row, column
        best[max(row - apart, 0) : row + apart + 1, max(column - apart, 0) : column + apart + 1] = 0


def _around(at: NDArray[np.intp], reach: int) -> slice:
    """Return the range of some pixels, wider by some on either side."""
    return slice(max(int(at[0]) - reach, 0), int(at[-1]) + reach + 1)


def _correlations(image_mm: FloatArray, surface: BoolArray, pattern: FacePattern) -> FloatArray:
    """Return the correlation with the face at each turn and pixel, 0 where it cannot be one."""
    rows, columns = image_mm.shape
    reach = pattern.inside.shape[0] // 2
    shape = (_fast(rows + 2 * reach), _fast(columns + 2 * reach))
    disk, *kernels = _spectra(pattern, shape)
    image, squares, seen = (
        fft.rfft2(each, shape) for each in (image_mm, image_mm**2, surface.astype(np.float64))
    )
    products = np.stack([seen * disk, squares * disk, *(image * kernel for kernel in kernels)])
    sums = np.roll(fft.irfft2(products, shape), (reach, reach), axis=(1, 2))[:, :rows, :columns]
    cover, energy = sums[:2]
    smooth, reliefs = np.split(sums[2:], [len(pattern.smooth)])
    pixels = pattern.inside.sum()
    norm = np.sqrt(np.maximum(energy - (smooth**2).sum(axis=0), pixels * NOISE_MM**2))
    height = reliefs / pattern.norm_mm
    possible = (cover >= LEAST_SEEN * pixels) & (height >= HEIGHT[0]) & (height <= HEIGHT[1])
    return np.where(possible, reliefs / norm, 0.0)


def _fast(size: int) -> int:
    return int(fft.next_fast_len(size, real=True))


@lru_cache(maxsize=8)
def _spectra(pattern: FacePattern, shape: tuple[int, int]) -> NDArray[np.complex128]:
    """Return the conjugate spectra of the disk, the smooth terms and the turned faces."""
    disk = pattern.inside[None].astype(np.float64)
    kernels = np.concatenate([disk, pattern.smooth, pattern.turned])
    return np.asarray(np.conj(fft.rfft2(kernels, shape)))
