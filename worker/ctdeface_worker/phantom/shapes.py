"""Implicit shapes: signed distances in mm (negative inside) of the few solids that a head is made of.

Coordinates are LPS mm in the head's own frame. A distance is exact for spheres and capsules and a
good approximation near the surface for the rest, which is where it is used (the bound of
https://iquilezles.org/articles/ellipsoids/).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from ctdeface_worker.imaging.domain import HuArray

Point: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[slice, slice, slice]
Axes: TypeAlias = tuple[HuArray, HuArray, HuArray]

FAR_MM = 999.0


class Shape(Protocol):
    """A solid with a box around it."""

    @property
    def corners(self) -> tuple[Point, Point]:
        """Lowest and highest (x, y, z); a mirrored shape counts on its left side, x >= 0."""

    @property
    def mirrored(self) -> bool:
        """Whether it is there on both sides."""

    def distance(self, x: HuArray, y: HuArray, z: HuArray) -> HuArray:
        """Signed distance in mm at broadcastable coordinates."""


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid with axes along the body's.

    Attributes:
        center: (x, y, z).
        half: half axes.
        mirrored: whether it is there on both sides.
        exponent: 2 for an ellipsoid; more rounds a box.
    """

    center: Point
    half: Point
    mirrored: bool = False
    exponent: float = 2.0

    @property
    def corners(self) -> tuple[Point, Point]:
        """Lowest and highest (x, y, z)."""
        (cx, cy, cz), (hx, hy, hz) = self.center, self.half
        return (cx - hx, cy - hy, cz - hz), (cx + hx, cy + hy, cz + hz)

    def distance(self, x: HuArray, y: HuArray, z: HuArray) -> HuArray:
        """Signed distance in mm."""
        (cx, cy, cz), (hx, hy, hz) = self.center, self.half
        dx, dy, dz = (x - cx) / hx, (y - cy) / hy, (z - cz) / hz
        if self.exponent == 2.0:
            near = np.sqrt(dx * dx + dy * dy + dz * dz)
        else:
            near = (
                np.abs(dx) ** self.exponent
                + np.abs(dy) ** self.exponent
                + np.abs(dz) ** self.exponent
            ) ** (1 / self.exponent)
        steep = np.sqrt((dx / hx) ** 2 + (dy / hy) ** 2 + (dz / hz) ** 2)
        return np.asarray(near * (near - 1) / np.maximum(steep, 1e-4), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Limb:
    """A capsule whose radius changes evenly from one end to the other.

    Attributes:
        start: (x, y, z) of one end.
        end: (x, y, z) of the other.
        radii: at the two ends.
        mirrored: whether it is there on both sides.
    """

    start: Point
    end: Point
    radii: tuple[float, float]
    mirrored: bool = False

    @property
    def corners(self) -> tuple[Point, Point]:
        """Lowest and highest (x, y, z)."""
        reach = max(self.radii)
        low, high = (
            np.minimum(self.start, self.end) - reach,
            np.maximum(self.start, self.end) + reach,
        )
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def distance(self, x: HuArray, y: HuArray, z: HuArray) -> HuArray:
        """Signed distance in mm."""
        (ax, ay, az), (bx, by, bz) = self.start, self.end
        ux, uy, uz = bx - ax, by - ay, bz - az
        along = ((x - ax) * ux + (y - ay) * uy + (z - az) * uz) / (ux * ux + uy * uy + uz * uz)
        t = np.clip(along, 0, 1)
        away = np.sqrt((x - ax - t * ux) ** 2 + (y - ay - t * uy) ** 2 + (z - az - t * uz) ** 2)
        return np.asarray(
            away - (self.radii[0] + t * (self.radii[1] - self.radii[0])), dtype=np.float32
        )


@dataclass(frozen=True, slots=True)
class Arch:
    """Half an elliptic ring, open to the back: a row of teeth, the body of the mandible, a head holder turned round.

    Attributes:
        center: (x, y, z) of the ellipse.
        half: half axes (x, y) of the ring's middle line; a negative y axis opens it to the front.
        thickness: half of it, in the plane.
        height: half of it, along z.
        sink: mm the ring's front lies deeper than its back ends, per mm of y.
        mirrored: false, the ring is symmetric itself.
    """

    center: Point
    half: tuple[float, float]
    thickness: float
    height: float
    sink: float = 0.0
    mirrored: bool = False

    @property
    def corners(self) -> tuple[Point, Point]:
        """Lowest and highest (x, y, z)."""
        (cx, cy, cz), (hx, hy) = self.center, self.half
        wide, deep = hx + self.thickness, abs(hy) + self.thickness
        front, back = (cy - deep, cy) if hy > 0 else (cy, cy + deep)
        return (cx - wide, front, cz - self.height - abs(self.sink) * deep), (
            cx + wide,
            back,
            cz + self.height,
        )

    def distance(self, x: HuArray, y: HuArray, z: HuArray) -> HuArray:
        """Signed distance in mm, rounded at the edges."""
        (cx, cy, cz), (hx, hy) = self.center, self.half
        dx, dy = (x - cx) / hx, (y - cy) / hy
        near = np.sqrt(dx * dx + dy * dy)
        ring = (
            np.abs(near * (near - 1) / np.maximum(np.sqrt((dx / hx) ** 2 + (dy / hy) ** 2), 1e-4))
            - self.thickness
        )
        level = np.abs(z - cz + self.sink * np.maximum(cy - y, 0)) - self.height
        back = (y - cy) * np.sign(hy)
        outside = np.sqrt(
            np.maximum(ring, 0) ** 2 + np.maximum(level, 0) ** 2 + np.maximum(back, 0) ** 2
        )
        return np.asarray(
            outside + np.minimum(np.maximum(np.maximum(ring, level), back), 0), dtype=np.float32
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """The head's own coordinates of a voxel grid, as broadcastable axes."""

    x: HuArray
    y: HuArray
    z: HuArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slice, row, column)."""
        return (self.z.size, self.y.size, self.x.size)

    def box(self, shape: Shape, margin: float) -> Box:
        """The voxels within a margin of a shape."""
        (x0, y0, z0), (x1, y1, z1) = shape.corners
        if shape.mirrored:
            x0 = -x1
        spans = ((self.z, z0, z1), (self.y, y0, y1), (self.x, x0, x1))
        inside = [
            np.searchsorted(axis.ravel(), (low - margin, high + margin))
            for axis, low, high in spans
        ]
        return (slice(*inside[0]), slice(*inside[1]), slice(*inside[2]))

    def axes(self, box: Box) -> Axes:
        """Return (x, y, z) of a box, broadcastable."""
        return self.x[:, :, box[2]], self.y[:, box[1]], self.z[box[0]]

    def distance(self, shape: Shape, box: Box) -> HuArray:
        """Signed distance of a shape inside a box."""
        x, y, z = self.axes(box)
        return shape.distance(np.abs(x) if shape.mirrored else x, y, z)


def union(
    frame: Frame, shapes: Iterable[Shape], *, smooth_mm: float = 0.0, margin: float = 4.0
) -> HuArray:
    """Signed distance of shapes merged with fillets of about `smooth_mm`; exact only within the margin around them."""
    field = np.full(frame.shape, FAR_MM, dtype=np.float32)
    for shape in shapes:
        box = frame.box(shape, margin + smooth_mm)
        field[box] = merge(field[box], frame.distance(shape, box), smooth_mm)
    return field


def merge(a: HuArray, b: HuArray, smooth_mm: float = 0.0) -> HuArray:
    """Union of two distances with a fillet (the polynomial smooth minimum)."""
    if not smooth_mm:
        return np.minimum(a, b)
    overlap = np.maximum(smooth_mm - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - overlap * overlap / (4 * smooth_mm), dtype=np.float32)


def carve(a: HuArray, b: HuArray, smooth_mm: float = 0.0) -> HuArray:
    """Return `a` without `b`."""
    return -merge(-a, b, smooth_mm)
