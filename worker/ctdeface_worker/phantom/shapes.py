"""Implicit solids, described by signed distances in mm (negative inside).

Coordinates are LPS mm in the head's own frame. A distance is exact for spheres and capsules. For
other solids it is a good approximation near the surface, where it is used (the bound of
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
    """A solid with its bounding box."""

    @property
    def corners(self) -> tuple[Point, Point]:
        """Lowest and highest (x, y, z); if mirrored, for x >= 0."""

    @property
    def mirrored(self) -> bool:
        """Whether it exists on both sides."""

    def distance(self, x: HuArray, y: HuArray, z: HuArray) -> HuArray:
        """Signed distance in mm at broadcastable coordinates."""


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid whose axes are parallel to the head's.

    Attributes:
        center: (x, y, z).
        half: half axes (x, y, z).
        mirrored: whether it exists on both sides.
        exponent: 2 for an ellipsoid, more for a rounded box.
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
    """A capsule whose radius changes linearly along its axis.

    Attributes:
        start: (x, y, z) of one end.
        end: (x, y, z) of the other.
        radii: at start and end.
        mirrored: whether it exists on both sides.
    """

    start: Point
    end: Point
    radii: tuple[float, float]
    mirrored: bool = False

    @property
    def corners(self) -> tuple[Point, Point]:
        """Lowest and highest (x, y, z)."""
        reach = max(self.radii)
        low = np.minimum(self.start, self.end) - reach
        high = np.maximum(self.start, self.end) + reach
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
    """Half an elliptic ring, open to the back.

    It makes a row of teeth, the body of the mandible or, open to the front, a head holder.

    Attributes:
        center: (x, y, z) of the ellipse.
        half: half axes (x, y) of the ring's center line; a negative y axis opens it to the front.
        thickness: half the thickness in the plane.
        height: half the height along z.
        sink: mm that the front is lower than the back ends, per mm of y.
        mirrored: False, because the ring itself is symmetric.
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
        bottom, top = cz - self.height - abs(self.sink) * deep, cz + self.height
        return (cx - wide, front, bottom), (cx + wide, back, top)

    def distance(self, x: HuArray, y: HuArray, z: HuArray) -> HuArray:
        """Signed distance in mm, with rounded edges."""
        (cx, cy, cz), (hx, hy) = self.center, self.half
        dx, dy = (x - cx) / hx, (y - cy) / hy
        near = np.sqrt(dx * dx + dy * dy)
        steep = np.maximum(np.sqrt((dx / hx) ** 2 + (dy / hy) ** 2), 1e-4)
        ring = np.abs(near * (near - 1) / steep) - self.thickness
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
    """Broadcastable coordinates of voxels in the head's frame."""

    x: HuArray
    y: HuArray
    z: HuArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (slice, row, column)."""
        return (self.z.size, self.y.size, self.x.size)

    def box(self, shape: Shape, margin: float) -> Box:
        """Return the voxels within a margin (mm) around a shape."""
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
        """Return the broadcastable (x, y, z) of a box."""
        return self.x[:, :, box[2]], self.y[:, box[1]], self.z[box[0]]

    def distance(self, shape: Shape, box: Box) -> HuArray:
        """Return the signed distance of a shape inside a box."""
        x, y, z = self.axes(box)
        return shape.distance(np.abs(x) if shape.mirrored else x, y, z)


def union(
    frame: Frame, shapes: Iterable[Shape], *, smooth_mm: float = 0.0, margin: float = 4.0
) -> HuArray:
    """Return the signed distance of merged shapes.

    Args:
        frame: the voxel grid.
        shapes: to merge.
        smooth_mm: approximate width of the fillets between them, 0 for none.
        margin: mm around the shapes within which the distance is exact.
    """
    field = np.full(frame.shape, FAR_MM, dtype=np.float32)
    for shape in shapes:
        box = frame.box(shape, margin + smooth_mm)
        field[box] = merge(field[box], frame.distance(shape, box), smooth_mm)
    return field


def merge(a: HuArray, b: HuArray, smooth_mm: float = 0.0) -> HuArray:
    """Return the union of two distances (the polynomial smooth minimum)."""
    if not smooth_mm:
        return np.minimum(a, b)
    overlap = np.maximum(smooth_mm - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - overlap * overlap / (4 * smooth_mm), dtype=np.float32)


def carve(a: HuArray, b: HuArray, smooth_mm: float = 0.0) -> HuArray:
    """Return the distance of `a` without `b`."""
    return -merge(-a, b, smooth_mm)
