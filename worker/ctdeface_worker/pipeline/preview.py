"""Draw the preview of a defaced volume.

It never shows the input.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ctdeface_shared.storage import atomic
from ctdeface_worker.imaging.canonical import GRID_MM, Canonical, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import OUTSIDE_HU, SKIN_HU, SOFT_TISSUE_WINDOW_HU

VIEWS_DEGREES = (0.0, 45.0, 90.0)
HISTOGRAM_HU = (-1200, 2000, 20)
"""Lowest and highest HU and the width of the bins."""
SIZE = (1200, 900)
_INK, _PAPER, _BARS = (28, 35, 48), (255, 255, 255), (74, 111, 165)
_ACROSS, _MARGIN, _CAPTION = 6, 16, 18

Tile = tuple[str, Image.Image, tuple[int, int, int, int]]
"""Caption, picture and its box (left, top, right, bottom)."""


def write_preview(after: Volume, path: Path, *, title: str = "Defaced volume") -> None:
    """Write the preview as PNG.

    It shows the surface from three sides, slices, and the histogram of HU.

    Raises:
        OSError: it cannot be written.
    """
    sheet = Image.new("RGB", SIZE, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 10), title, fill=_INK, font=ImageFont.load_default(18))
    for caption, picture, box in _tiles(
        _body(to_canonical(after, spacing_mm=GRID_MM)), after.hu[after.valid]
    ):
        left, top, right, bottom = box
        scale = min((right - left) / picture.width, (bottom - top - _CAPTION) / picture.height)
        fitted = picture.resize(
            (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)),
            Image.Resampling.BILINEAR,
        )
        pen.text((left, top), caption, fill=_INK, font=ImageFont.load_default(12))
        sheet.paste(fitted, (left + (right - left - fitted.width) // 2, top + _CAPTION))
    png = BytesIO()
    sheet.save(png, format="PNG", compress_level=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_file(path, png.getvalue())


def write_picture(brightness: NDArray[np.uint8], path: Path) -> None:
    """Write one gray picture as PNG.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(brightness).save(path)


def _tiles(canonical: Canonical, hu: HuArray) -> Iterator[Tile]:
    """Yield the tiles of the sheet."""
    for number, yaw in enumerate(VIEWS_DEGREES):
        shaded = (255 * surface(canonical, yaw)[::-1]).astype(np.uint8)
        yield (
            f"surface, {yaw:.0f}° from the front",
            Image.fromarray(shaded),
            _cell(0, 2 * number, 2),
        )
    for number, part in enumerate(np.linspace(0.06, 0.94, 8)):
        at = round(part * (canonical.hu.shape[0] - 1))
        caption = f"axial, {canonical.origin_lps[2] + at * GRID_MM:.0f} mm"
        yield caption, _windowed(canonical.hu[at]), _cell(1 + number // 4, number % 4, 1)
    yield (
        "sagittal, middle of the body",
        _windowed(canonical.hu[::-1, :, _middle(canonical)]),
        _cell(1, 4, 2),
    )
    yield "voxels by HU (logarithmic)", _histogram(hu), _cell(2, 4, 2)


def surface(canonical: Canonical, yaw_degrees: float) -> FloatArray:
    """Render the skin from the front, turned by a yaw.

    Returns:
        Brightness from 0 to 1, index (z, across).
    """
    hu = canonical.hu
    if yaw_degrees % 90:
        hu = ndimage.rotate(
            hu, -yaw_degrees, axes=(1, 2), reshape=True, order=1, mode="constant", cval=OUTSIDE_HU
        )
    elif yaw_degrees:
        hu = np.rot90(hu, -round(yaw_degrees / 90), axes=(1, 2))
    soft = ndimage.gaussian_filter(hu, 0.7, truncate=2.0)
    hit, depth = _first_crossing(soft)
    smooth = ndimage.median_filter(depth, size=3)
    slope_z, slope_x = (
        np.gradient(smooth) if min(smooth.shape) > 1 else (np.zeros_like(smooth),) * 2
    )
    light = 1.0 / np.sqrt(1.0 + slope_z**2 + slope_x**2)
    nearness = 1.0 - 0.35 * np.clip(
        (smooth - smooth[hit].min(initial=0)) / max(hu.shape[1], 1), 0, 1
    )
    return np.where(hit, 0.15 + 0.85 * light * nearness, 0.0)


def _first_crossing(hu: HuArray) -> tuple[BoolArray, FloatArray]:
    """Return where rays from the front meet the skin.

    For each ray: whether it meets skin, and the depth.

    The depth is in voxels, interpolated linearly.
    """
    solid = hu > SKIN_HU
    hit = np.asarray(solid.any(axis=1), dtype=bool)
    at = solid.argmax(axis=1)[:, None, :]
    inside, before = (
        np.take_along_axis(hu, index, axis=1)[:, 0].astype(np.float64)
        for index in (at, np.maximum(at - 1, 0))
    )
    part = np.clip((inside - SKIN_HU) / np.maximum(inside - before, 1.0), 0, 1)
    return hit, np.where(hit, at[:, 0] - part, hu.shape[1])


def _cell(row: int, column: int, wide: int) -> tuple[int, int, int, int]:
    """Return the box of a tile.

    The first row is higher.
    """
    tops = (44, 384, 636, SIZE[1])
    width = (SIZE[0] - _MARGIN) // _ACROSS
    left = _MARGIN + column * width
    return left, tops[row], left + wide * width - _MARGIN, tops[row + 1] - 8


def _windowed(hu: HuArray) -> Image.Image:
    low, high = SOFT_TISSUE_WINDOW_HU
    return Image.fromarray((255 * np.clip((hu - low) / (high - low), 0, 1)).astype(np.uint8))


def _histogram(hu: HuArray) -> Image.Image:
    """Draw the logarithmic histogram."""
    low, high, width = HISTOGRAM_HU
    counts, _ = np.histogram(
        hu[:: max(hu.size // 500_000, 1)], bins=np.arange(low, high + 1, width)
    )
    picture = Image.new("RGB", (384, 220), _PAPER)
    pen = ImageDraw.Draw(picture)
    heights: NDArray[np.float64] = (
        200 * np.log10(counts + 1) / max(float(np.log10(counts.max(initial=0) + 1)), 1.0)
    )
    step = picture.width / len(counts)
    for number, height in enumerate(heights):
        pen.rectangle((number * step, 200 - height, (number + 1) * step, 200), fill=_BARS)
    for mark in range(-1000, high, 500):
        pen.text(
            ((mark - low) / width * step - 10, 204),
            str(mark),
            fill=_INK,
            font=ImageFont.load_default(11),
        )
    return picture


def _body(canonical: Canonical) -> Canonical:
    """Crop to voxels denser than air, with a margin."""
    body = canonical.hu > SKIN_HU
    if not body.any():
        return canonical
    cut = [
        slice(max(part.start - 4, 0), part.stop + 4)
        for part in ndimage.find_objects(body.astype(np.uint8))[0]
    ]
    corner = np.array([part.start for part in reversed(cut)]) * canonical.spacing_mm
    return Canonical(
        hu=canonical.hu[tuple(cut)].copy(),
        valid=canonical.valid[tuple(cut)].copy(),
        origin_lps=canonical.origin_lps + corner,
        spacing_mm=canonical.spacing_mm,
    )


def _middle(canonical: Canonical) -> int:
    """Return the middle column of the body."""
    columns = np.flatnonzero((canonical.hu > SKIN_HU).any(axis=(0, 1)))
    return int(columns[[0, -1]].mean()) if columns.size else canonical.hu.shape[2] // 2
