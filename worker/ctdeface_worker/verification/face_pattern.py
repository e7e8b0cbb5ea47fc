"""The relief of an average face, and how far other reliefs resemble it."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, FloatArray
from ctdeface_worker.verification.surfaces import PIXEL_MM

RADIUS_MM = 42.0
"""Radius of the part of an adult's face that is compared, from the brow to the lips."""
SIZES = (1.0, 0.8, 0.64)
"""Sizes of faces that are looked for; the smallest is an infant's."""
TURNS = 12
DEPTH_MM = 56.0
"""Depth of the relief of an adult's face; what is farther behind is not a part of it."""
HALF_NOSE = 0.35
"""Half the width of the nose, as a share of the radius."""
FINE_TURN = 2 * np.pi / TURNS / 3
WORTH_A_CLOSER_LOOK = 0.04
"""Resemblance above which close positions are tried as well."""

_DEPTHS_MM = """
    22 22 22 22 23 24 26 28 30 32 33 35
    20 20 21 21 22 24 26 28 29 31 33 35
    18 19 20 22 23 25 27 29 30 32 34 36
    16 17 19 23 25 27 29 29 30 31 33 36
    13 14 18 23 26 28 29 28 28 29 30 34
    11 12 17 23 26 28 28 27 27 27 29 31
     8  9 15 22 26 27 27 27 27 27 28 31
     6  8 14 22 26 27 28 27 27 28 29 32
     5  7 14 22 26 27 28 28 28 29 30 33
     4  6 14 23 25 27 28 28 28 29 31 33
     2  5 14 23 25 26 27 27 27 28 30 32
     1  3 12 20 23 24 25 26 26 27 28 31
     0  2  9 16 19 22 24 25 25 26 28 30
     2  4  9 13 16 20 23 24 25 26 27 29
     7 11 14 14 16 20 23 24 25 26 27 29
    14 18 20 18 18 21 22 24 25 26 28 30
    18 20 21 20 20 21 22 24 25 27 28 31
    19 19 20 20 20 21 23 24 26 27 29 31
    19 19 20 20 21 22 23 24 26 28 30 33
    18 19 19 20 21 22 23 25 27 29 31 34
    19 19 20 21 22 23 24 26 27 30 32 35
    23 23 23 24 24 24 25 27 29 31 33 36
    35 34 33 32 28 26 27 29 31 33 35 37
"""
"""Depth of one half of an average synthetic face, in mm behind the tip of the nose.

Rows from the forehead to the chin and columns from the midline to the cheek, 4 mm apart.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacePattern:
    """An average face of one size.

    Attributes:
        inside: pixels of the compared disk.
        smooth: orthonormal slopes and curvatures, which say nothing about a face, (n, y, x).
        turned: relief without them at each turn, of unit norm, (turn, y, x).
        norm_mm: norm of the relief before it was made a unit.
        depth_mm: depth of the relief.
    """

    inside: BoolArray
    smooth: FloatArray
    turned: FloatArray
    norm_mm: float
    depth_mm: float


@cache
def patterns() -> tuple[FacePattern, ...]:
    """Return the average face at all sizes."""
    half = np.array(_DEPTHS_MM.split(), dtype=np.float64).reshape(-1, 12)[::-1]
    face = -np.concatenate([half[:, :0:-1], half], axis=1)
    return tuple(_pattern(face, size) for size in SIZES)


def _pattern(face: FloatArray, size: float) -> FacePattern:
    """Return a face (y, x), whose middle is its origin, at a size."""
    reach = int(np.ceil(RADIUS_MM * size / PIXEL_MM))
    up, across = np.mgrid[-reach : reach + 1, -reach : reach + 1] / size
    inside = np.hypot(up, across) * PIXEL_MM <= RADIUS_MM
    terms = [np.ones_like(up), up, across, up * up, across * across, up * across]
    basis, _ = np.linalg.qr(np.stack([term[inside] for term in terms], axis=1))
    middle = (face.shape[0] // 2, face.shape[1] // 2)
    reliefs = []
    for angle in np.arange(TURNS) * 2 * np.pi / TURNS:
        relief = size * _turned(face, middle, angle, (up, across))[inside]
        reliefs.append(relief - basis @ (basis.T @ relief))
    norm_mm = float(np.linalg.norm(reliefs[0]))
    return FacePattern(
        inside=inside,
        smooth=_spread(basis.T, inside),
        turned=_spread(np.stack([one / np.linalg.norm(one) for one in reliefs]), inside),
        norm_mm=norm_mm,
        depth_mm=DEPTH_MM * size,
    )


def _spread(values: FloatArray, inside: BoolArray) -> FloatArray:
    """Return images whose pixels inside have the given values."""
    images = np.zeros((len(values), *inside.shape))
    images[:, inside] = values
    return images


def _turned(
    image: FloatArray,
    middle: tuple[int, int],
    angle: float,
    offsets: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Sample an image around its middle at turned offsets (up, across)."""
    up, across = offsets
    c, s = np.cos(angle), np.sin(angle)
    at = [middle[0] + c * up - s * across, middle[1] + s * up + c * across]
    return np.asarray(ndimage.map_coordinates(image, at, order=1, mode="nearest"))


def alike(image: FloatArray, place: tuple[int, int], turn: int, pattern: FacePattern) -> float:
    """Return the resemblance of a place to a face, at the best of a few close positions.

    Args:
        image: heights in mm.
        place: row and column.
        turn: number of the pattern's turn.
        pattern: the face that it is compared with.
    """
    turned = -2 * np.pi * turn / TURNS
    alike = _resemblance(_patch(image, place, (turned, 0.0), pattern), pattern)
    if alike < WORTH_A_CLOSER_LOOK:
        return alike
    return max(
        _resemblance(_patch(image, place, (turned + more, aside), pattern), pattern)
        for more in (-FINE_TURN, 0.0, FINE_TURN)
        for aside in (-0.5, 0.0, 0.5)
    )


def _patch(
    image: FloatArray, place: tuple[int, int], turn: tuple[float, float], pattern: FacePattern
) -> FloatArray:
    """Return the compared disk of an image upright, without slopes and curvatures.

    Args:
        image: heights in mm.
        place: middle of the disk.
        turn: angle in radians, and shift across the face in pixels.
        pattern: the face that it is compared with.
    """
    reach = pattern.inside.shape[0] // 2
    up, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    patch = _turned(image, place, turn[0], (up, across + turn[1])) * pattern.inside
    smooth = (pattern.smooth * patch).sum(axis=(1, 2))
    return np.asarray(patch - np.tensordot(smooth, pattern.smooth, 1))


def _resemblance(patch: FloatArray, pattern: FacePattern) -> float:
    """Return the product of four correlations: any of them is low for most surfaces.

    They are those of the whole, of the worst half, of what is beside the nose, and of left with
    right.
    """
    reach = pattern.inside.shape[0] // 2
    face, inside = pattern.turned[0], pattern.inside
    up, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    halves = (across < 0, across > 0, up < 0, up > 0)
    beside = inside & (np.abs(across) > HALF_NOSE * reach)
    figures = (
        _correlation(patch, face, inside),
        min(_correlation(patch, face, half & inside) for half in halves),
        _concordance(
            _without(pattern.smooth, patch, beside)[beside],
            _without(pattern.smooth, face * pattern.norm_mm, beside)[beside],
        ),
        _correlation(patch, patch[:, ::-1], inside),
    )
    return float(np.prod(np.maximum(figures, 0.0)))


def _without(terms: FloatArray, image: FloatArray, where: BoolArray) -> FloatArray:
    """Return an image without slopes and curvatures, fitted to some pixels only."""
    basis, _ = np.linalg.qr(terms[:, where].T)
    rest = np.zeros_like(image)
    rest[where] = image[where] - basis @ (basis.T @ image[where])
    return rest


def _correlation(a: FloatArray, b: FloatArray, where: BoolArray) -> float:
    one, other = a[where] - a[where].mean(), b[where] - b[where].mean()
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-9))


def _concordance(a: FloatArray, b: FloatArray) -> float:
    """Return the correlation of two reliefs, which is low if one is flatter."""
    return float(2 * (a @ b) / (a @ a + b @ b))
