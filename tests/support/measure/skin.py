"""Measure how much facial skin in view is removed, by parallel rays.

A ray counts if the first thing of the patient that it meets in the input is soft tissue with
measured air in front of it, well inside the field of view. Its skin is gone when the first surface
in the output is bone, lies deeper, or is absent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from tests.support.measure.stack import Voxels, chord_mm, voxels_at

AIR_HU = -300.0
BONE_HU = 200.0
EDGE_MM = 5.0
DEEPER_MM = 3.0
DEEPER_VOXELS = 1.5
BEHIND_MM = 60.0
"""Facial skin lies at most this far behind the nose; what is farther back is seen past the face."""
FRONT_MM = 60.0
"""Rays start this far in front of the nose."""
JUST_BEHIND_MM = 1.0
"""Where partial volume hides bone: a surface is bone when bone follows this soon."""
VIEWS = {
    "front": (0.0, 0.0),
    "yaw +30": (30.0, 0.0),
    "yaw -30": (-30.0, 0.0),
    "pitch +20": (0.0, 20.0),
    "pitch -20": (0.0, -20.0),
}
"""Degrees of yaw and pitch of each view."""
_CORNERS = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)], dtype=np.float64) - 1
AROUND = EDGE_MM * _CORNERS / np.linalg.norm(_CORNERS, axis=1, keepdims=True)
"""26 places on a sphere around a point of the skin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The measured part of the face, mm along the axes of the head.

    Attributes:
        right_x: the right orbital rim (the smaller x).
        left_x: the left orbital rim.
        chin_z: the chin.
        brow_z: the brow.
        nose_y: foremost skin.
        axes: (3, 3) whose columns are the head's axes to the left, to the back and upward in LPS;
            those of the patient unless it is turned.
    """

    right_x: float
    left_x: float
    chin_z: float
    brow_z: float
    nose_y: float
    axes: FloatArray = field(default_factory=lambda: np.eye(3))

    @property
    def center(self) -> FloatArray:
        """Middle of the window at the depth of the nose, LPS mm."""
        middle = np.array(
            [(self.right_x + self.left_x) / 2, self.nose_y, (self.chin_z + self.brow_z) / 2]
        )
        return np.asarray(self.axes @ middle, dtype=np.float64)

    @property
    def half(self) -> tuple[float, float]:
        """Half width and half height."""
        return (self.left_x - self.right_x) / 2, (self.brow_z - self.chin_z) / 2

    def holds(self, points_lps: FloatArray) -> BoolArray:
        """Whether positions (..., 3) belong to the face's front."""
        x, y, z = np.moveaxis(points_lps @ self.axes, -1, 0)
        inside = (x >= self.right_x) & (x <= self.left_x) & (z >= self.chin_z) & (z <= self.brow_z)
        return np.asarray(inside & (y <= self.nose_y + BEHIND_MM), dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Results per ray, (height, side).

    Attributes:
        counted: rays that meet facial skin in the input.
        bright: rays left out because the first surface is already bone or metal.
        removed: counted rays whose skin is gone.
        skin_mm: depth of the input's surface behind the start of the ray; infinite where there is
            none.
    """

    counted: BoolArray
    bright: BoolArray
    removed: BoolArray
    skin_mm: FloatArray

    @property
    def share_removed(self) -> float:
        """Of the counted rays; NaN without any."""
        return (
            float(self.removed.sum() / self.counted.sum()) if self.counted.any() else float("nan")
        )

    @property
    def share_bright(self) -> float:
        """Share of the rays that were left out for brightness."""
        total = int(self.counted.sum() + self.bright.sum())
        return float(self.bright.sum() / total) if total else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class SkinResult:
    """What the front view and the four oblique views say."""

    views: Mapping[str, View]

    @property
    def front(self) -> View:
        """The view that decides."""
        return self.views["front"]

    @property
    def counted(self) -> int:
        """Rays that met facial skin from the front."""
        return int(self.front.counted.sum())

    @property
    def removed(self) -> float:
        """Share of facial skin that is gone, seen from the front."""
        return self.front.share_removed

    @property
    def bright(self) -> float:
        """Share of frontal rays not counted for brightness."""
        return self.front.share_bright

    @property
    def worst_oblique(self) -> float:
        """The smallest share of the four oblique views."""
        return float(
            np.nanmin([view.share_removed for name, view in self.views.items() if name != "front"])
        )


def facial_skin(
    before: Volume, after: Volume, window: Window, views: Iterable[str] = tuple(VIEWS)
) -> SkinResult:
    """Measure the removed skin of a window, from the front and four oblique views.

    Args:
        before: the input.
        after: the output, on the same voxels.
        window: where the face is.
        views: names of the views to take, the front among them.
    """
    patient = find_patient(before, window)
    return SkinResult(
        views={
            name: _look(before, after, patient, _Rays.of(before.geometry, window, *VIEWS[name]))
            for name in views
        }
    )


def find_patient(before: Volume, window: Window) -> BoolArray:
    """Return the largest connected object denser than air around the window."""
    box = _box_around(before.geometry, window)
    dense = (before.hu[box] > AIR_HU) & before.valid[box]
    labels, count = ndimage.label(dense)
    patient: BoolArray = np.zeros(before.hu.shape, dtype=bool)
    if count:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        patient[box] = labels == sizes.argmax()
    return patient


def _box_around(geometry: Geometry, window: Window) -> tuple[slice, slice, slice]:
    wide, high = (half + 60.0 for half in window.half)
    sides = [np.array([-wide, wide]), np.array([-FRONT_MM, 2 * BEHIND_MM]), np.array([-high, high])]
    corners = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 3) @ window.axes.T + window.center
    index = np.array(voxels_at(geometry, corners).index)
    low, top = index.min(axis=1), index.max(axis=1) + 1
    return slice(low[0], top[0]), slice(low[1], top[1]), slice(low[2], top[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rays:
    """Parallel rays: `starts` (height, side, 3), `count` samples every `step_mm`."""

    starts: FloatArray
    direction: FloatArray
    step_mm: float
    count: int
    need_mm: float
    window: Window

    @classmethod
    def of(cls, geometry: Geometry, window: Window, yaw: float, pitch: float) -> "_Rays":
        a, b = np.radians([yaw, pitch])
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        tip = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        side, depth, height = (window.axes @ turn @ tip).T
        apart = max(1.0, min(geometry.spacing_mm))
        more = 0.0 if not (yaw or pitch) else 40.0
        u, v = (np.arange(-half - more, half + more + apart / 2, apart) for half in window.half)
        starts = (
            window.center - FRONT_MM * depth + u[None, :, None] * side + v[:, None, None] * height
        )
        chord = chord_mm(geometry, depth)
        need = max(DEEPER_MM, DEEPER_VOXELS * chord)
        step = max(0.5 * chord, 0.4)
        reach = FRONT_MM + BEHIND_MM + more + need + 2 * chord
        return cls(
            starts=starts,
            direction=depth,
            step_mm=step,
            count=int(np.ceil(reach / step)),
            need_mm=need,
            window=window,
        )


def _look(before: Volume, after: Volume, patient: BoolArray, rays: _Rays) -> View:
    """Cast the rays row by row."""
    rows = [_look_row(before, after, patient, (rays, start)) for start in rays.starts]
    counted, bright, removed, skin = (np.stack(parts) for parts in zip(*rows, strict=True))
    return View(counted=counted > 0, bright=bright > 0, removed=removed > 0, skin_mm=skin)


def _look_row(
    before: Volume, after: Volume, patient: BoolArray, line: tuple[_Rays, FloatArray]
) -> tuple[BoolArray, BoolArray, BoolArray, FloatArray]:
    """Return counted, bright, removed and the skin's depth for one row of rays."""
    rays, starts = line
    points = (
        starts[:, None, :] + rays.step_mm * np.arange(rays.count)[None, :, None] * rays.direction
    )
    voxels = voxels_at(before.geometry, points)
    measured = voxels.inside & before.valid[voxels.index]
    old = before.hu[voxels.index]
    met, skin = _first(patient[voxels.index] & measured)
    air = _pick(measured & (old <= AIR_HU), np.maximum(skin - 1, 0)) & (skin > 0)
    faced = (
        met
        & air
        & _inside_view(before, _pick_points(points, skin))
        & rays.window.holds(_pick_points(points, skin))
    )
    behind = max(round(JUST_BEHIND_MM / rays.step_mm), 0)
    hard = _brightest(old, skin, behind) > BONE_HU
    new = _values(after, voxels)
    meets, first = _first(new > AIR_HU)
    deeper = (first - skin) * rays.step_mm >= rays.need_mm - 1e-6
    bone = (first >= skin) & (_brightest(new, first, behind) > BONE_HU)
    counted = faced & ~hard
    return (
        counted,
        faced & hard,
        counted & (~meets | deeper | bone),
        np.where(met, skin * rays.step_mm, np.inf),
    )


def _values(volume: Volume, voxels: Voxels) -> HuArray:
    """What the output holds; nothing outside the volume and on padding."""
    values: HuArray = np.where(
        voxels.inside & volume.valid[voxels.index], volume.hu[voxels.index], np.float32(-np.inf)
    )
    return values


def _first(hits: BoolArray) -> tuple[BoolArray, NDArray[np.intp]]:
    """Return per ray whether and at which sample it first hits."""
    return np.asarray(hits.any(axis=1), dtype=bool), hits.argmax(axis=1)


def _pick(field: BoolArray, at: NDArray[np.intp]) -> BoolArray:
    return np.asarray(np.take_along_axis(field, at[:, None], axis=1)[:, 0], dtype=bool)


def _pick_points(points: FloatArray, at: NDArray[np.intp]) -> FloatArray:
    return np.asarray(np.take_along_axis(points, at[:, None, None], axis=1)[:, 0], dtype=np.float64)


def _brightest(hu: HuArray, at: NDArray[np.intp], behind: int) -> HuArray:
    """Brightest value from a sample to so many samples behind it."""
    reach = np.minimum(at[:, None] + np.arange(behind + 1), hu.shape[1] - 1)
    return np.asarray(np.take_along_axis(hu, reach, axis=1).max(axis=1), dtype=np.float32)


def _inside_view(volume: Volume, points_lps: FloatArray) -> BoolArray:
    """Whether everything 5 mm around a position is measured."""
    voxels = voxels_at(volume.geometry, points_lps[:, None, :] + AROUND)
    return np.asarray((voxels.inside & volume.valid[voxels.index]).all(axis=1), dtype=bool)
