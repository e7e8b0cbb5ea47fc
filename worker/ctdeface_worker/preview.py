"""The *after* preview: a picture of the defaced volume, so that a person can see what leaves. It never shows the input."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from ctdeface_worker.canonical import Canonical, to_canonical
from ctdeface_worker.domain import FloatArray, HuArray, Volume

GRID_MM = 2.0
SKIN_HU = -300.0
VIEWS_DEGREES = (0.0, 45.0, 90.0)
_INK = "#1c2330"


def write_preview(after: Volume, path: Path, *, title: str = "Defaced volume") -> None:
    """Write a PNG with surface renders from three sides, a grid of slices and the HU histogram."""
    canonical = _body(to_canonical(after, spacing_mm=GRID_MM))
    figure = Figure(figsize=(12, 8.4), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 6, left=0.03, right=0.98, top=0.91, bottom=0.07, hspace=0.22, wspace=0.12, height_ratios=(1.35, 1, 1))
    figure.suptitle(title, fontsize=13, color=_INK, x=0.03, ha="left", weight="bold")
    for number, yaw in enumerate(VIEWS_DEGREES):
        axes = figure.add_subplot(grid[0, 2 * number : 2 * number + 2])
        axes.imshow(surface(canonical, yaw), cmap="gray", vmin=0, vmax=1, origin="lower")
        axes.set_title(f"surface, {yaw:.0f}° from the front", fontsize=9, color=_INK)
        axes.axis("off")
    for number, z in enumerate(np.linspace(0.06, 0.94, 8)):
        axes = figure.add_subplot(grid[1 + number // 4, number % 4])
        at = round(z * (canonical.hu.shape[0] - 1))
        axes.imshow(canonical.hu[at], cmap="gray", vmin=-160, vmax=240)
        axes.set_title(f"axial, {canonical.origin_lps[2] + at * GRID_MM:.0f} mm", fontsize=8, color=_INK, pad=2)
        axes.axis("off")
    sagittal = figure.add_subplot(grid[1, 4:])
    sagittal.imshow(canonical.hu[:, :, _middle(canonical)], cmap="gray", vmin=-160, vmax=240, origin="lower")
    sagittal.set_title("sagittal, middle of the body", fontsize=8, color=_INK, pad=2)
    sagittal.axis("off")
    _histogram(figure.add_subplot(grid[2, 4:]), after.hu[after.valid])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def surface(canonical: Canonical, yaw_degrees: float) -> FloatArray:
    """Shade the air-skin surface seen from the front turned by a yaw: brightness 0 to 1, index (z, across)."""
    hu = canonical.hu
    if yaw_degrees:
        hu = ndimage.rotate(hu, -yaw_degrees, axes=(1, 2), reshape=True, order=1, mode="constant", cval=-1024.0)
    solid = ndimage.gaussian_filter(hu, 0.7) > SKIN_HU
    hit = solid.any(axis=1)
    depth = np.where(hit, solid.argmax(axis=1), hu.shape[1]).astype(np.float64)
    smooth = ndimage.median_filter(depth, size=3)
    slope_z, slope_x = np.gradient(smooth)
    light = 1.0 / np.sqrt(1.0 + slope_z**2 + slope_x**2)
    nearness = 1.0 - 0.35 * np.clip((smooth - smooth[hit].min(initial=0)) / max(hu.shape[1], 1), 0, 1)
    return np.where(hit, 0.15 + 0.85 * light * nearness, 0.0)


def _body(canonical: Canonical) -> Canonical:
    """Crop to what is denser than skin, with a margin."""
    body = canonical.hu > SKIN_HU
    if not body.any():
        return canonical
    cut = [slice(max(part.start - 4, 0), part.stop + 4) for part in ndimage.find_objects(body.astype(np.uint8))[0]]
    corner = np.array([part.start for part in reversed(cut)]) * canonical.spacing_mm
    return Canonical(
        hu=canonical.hu[tuple(cut)].copy(),
        valid=canonical.valid[tuple(cut)].copy(),
        origin_lps=canonical.origin_lps + corner,
        spacing_mm=canonical.spacing_mm,
    )


def _middle(canonical: Canonical) -> int:
    """Column through the middle of what is denser than skin."""
    columns = np.flatnonzero((canonical.hu > SKIN_HU).any(axis=(0, 1)))
    return int(columns[[0, -1]].mean()) if columns.size else canonical.hu.shape[2] // 2


def _histogram(axes: Axes, hu: HuArray) -> None:
    axes.hist(hu[:: max(hu.size // 500_000, 1)], bins=np.arange(-1200, 2001, 20).tolist(), color="#4a6fa5", log=True)
    axes.set_title("voxels by HU (logarithmic)", fontsize=8, color=_INK, pad=2)
    axes.tick_params(labelsize=7, colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
