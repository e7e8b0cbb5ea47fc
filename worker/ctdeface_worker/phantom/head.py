"""A synthetic head CT whose face and brain are known by construction."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.domain import BoolArray, Geometry, HuArray, Volume, read_only
from ctdeface_worker.phantom import anatomy
from ctdeface_worker.phantom.anatomy import Build
from ctdeface_worker.phantom.shapes import Frame, carve, merge, union

SMALL_MM = (3.0, 2.0, 2.0)
"""A coarse spacing for tests: a head in about a second."""

FRONT_MM, BACK_MM, SIDE_MM = -136.0, 120.0, 128.0
FACE_TOP_MM, FACE_BOTTOM_MM = 62.0, -106.0
NOISE_HU = 6.0
LOWEST_HU, HIGHEST_HU = -1023.0, 3071.0  # what 12 bits hold from -1024 HU, which is left for padding


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A synthetic head with its truth.

    Attributes:
        seed: what it was drawn from.
        volume: the CT, axial, slices from the feet upward.
        face: what identifies: soft tissue in front of the facial bones, and the air in front of it.
        brain: everything inside the cavity of the skull.
    """

    seed: int
    volume: Volume
    face: BoolArray
    brain: BoolArray

    def __post_init__(self) -> None:
        """Freeze the labels."""
        read_only(self.face)
        read_only(self.brain)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """Signed distances in mm, negative inside."""

    cavity: HuArray
    bone: HuArray
    soft: HuArray
    orbit: HuArray
    air: HuArray


def make_head(
    seed: int = 1,
    *,
    spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0),
    top_mm: float = 146.0,
    bottom_mm: float = -124.0,
    soft_tissue: bool = True,
) -> Phantom:
    """Draw a head.

    Args:
        seed: sizes differ by a few percent between seeds.
        spacing_mm: (slice, row, column).
        top_mm: upper end above the ear canals; the vertex lies at about 131 mm.
        bottom_mm: lower end; 70 leaves the crown alone, without a face.
        soft_tissue: without, a bare skull in air, as phantoms for quality control are.

    Returns:
        The volume with face and brain; without soft tissue or below the crown the face is empty.
    """
    made = anatomy.build(seed)
    geometry = _geometry(spacing_mm, top_mm, bottom_mm)
    frame = _frame(geometry, made)
    fields = _fields(frame, made)
    hu = _painted(frame, fields, max(spacing_mm), soft_tissue=soft_tissue)
    hu = ndimage.gaussian_filter(hu, 0.45, output=np.float32)
    hu += np.random.default_rng(seed).standard_normal(hu.shape, dtype=np.float32) * NOISE_HU
    volume = Volume(hu=np.clip(hu, LOWEST_HU, HIGHEST_HU), valid=np.ones(hu.shape, dtype=np.bool_), geometry=geometry)
    face = _face(frame, fields) if soft_tissue else np.zeros(hu.shape, dtype=np.bool_)
    return Phantom(seed=seed, volume=volume, face=face, brain=np.asarray(fields.cavity < 0))


def _geometry(spacing_mm: tuple[float, float, float], top_mm: float, bottom_mm: float) -> Geometry:
    dz, dy, dx = spacing_mm
    shape = (round((top_mm - bottom_mm) / dz), round((BACK_MM - FRONT_MM) / dy), round(2 * SIDE_MM / dx))
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = dz, dy, dx, 1
    affine[:3, 3] = (dx / 2 - SIDE_MM, FRONT_MM + dy / 2, bottom_mm + dz / 2)
    return Geometry.from_affine(shape, affine)


def _frame(geometry: Geometry, made: Build) -> Frame:
    """Return the head's own coordinates: patient mm, divided by the head's size."""
    start, counts = geometry.slice_origins_lps[0], geometry.shape
    z, y, x = (((start[2 - k] + np.arange(counts[k]) * geometry.spacing_mm[k]) / made.scale[2 - k]).astype(np.float32) for k in range(3))
    return Frame(x=x[None, None, :], y=y[None, :, None], z=z[:, None, None])


def _fields(frame: Frame, made: Build) -> _Fields:
    orbit = union(frame, [anatomy.ORBIT], margin=12)
    cavity = union(frame, anatomy.CEREBRUM, smooth_mm=12, margin=40)
    floor = 14 - 0.34 * frame.y + 6 * np.exp(-((frame.x / 14) ** 2))  # of the anterior and middle fossa, highest in the middle
    behind = np.maximum(frame.y + 8, 0) * 1.2
    cavity = np.asarray(carve(cavity, frame.z - floor + behind, 10), dtype=np.float32)
    cavity = carve(cavity, orbit - 4, 4)
    vault = cavity - anatomy.VAULT_MM
    bone = merge(union(frame, (*anatomy.MIDFACE, *anatomy.SKULL_BASE, anatomy.NASAL_BONE), smooth_mm=6, margin=16), vault, 5)
    walls = np.maximum(orbit - 3, -80 + 0.006 * frame.x**2 - frame.y)
    bone = carve(merge(bone, walls.astype(np.float32), 3), orbit)
    jaw = union(frame, anatomy.jaw(made.chin_mm), smooth_mm=8, margin=16)
    soft = _skin(frame, made, merge(merge(bone, vault), jaw, 8), vault)
    air = union(frame, anatomy.airways(made.nose_mm), smooth_mm=2)
    air = carve(air, union(frame, anatomy.CONCHAE))
    bone = carve(bone, air - 1)
    bone = merge(bone, jaw)
    bone = merge(bone, _spine(frame))
    bone = carve(carve(bone, cavity), union(frame, [anatomy.FORAMEN]))
    return _Fields(cavity=cavity, bone=bone, soft=soft, orbit=orbit, air=air)


def _skin(frame: Frame, made: Build, bone: HuArray, vault: HuArray) -> HuArray:
    soft = merge(vault - made.scalp_mm, bone - 5, 6)
    soft = merge(soft, union(frame, anatomy.relief(made), smooth_mm=18, margin=30), 14)
    soft = merge(soft, union(frame, anatomy.features(made), smooth_mm=5, margin=30), 7)
    soft = merge(soft, union(frame, anatomy.NECK, smooth_mm=20, margin=40), 22)
    soft = merge(soft, union(frame, anatomy.EARS, smooth_mm=3, margin=10), 3)
    return carve(carve(soft, union(frame, [anatomy.CONCHA], margin=6), 3), union(frame, [anatomy.MOUTH], margin=4), 3)


def _spine(frame: Frame) -> HuArray:
    """Vertebrae, 18 mm apart, with softer disks between them."""
    spine = carve(union(frame, anatomy.SPINE, smooth_mm=4), union(frame, [anatomy.CANAL]))
    return np.asarray(spine + 3 * np.clip(np.cos(2 * np.pi * frame.z / 18), 0, 1) ** 4, dtype=np.float32)


def _painted(frame: Frame, fields: _Fields, edge_mm: float, *, soft_tissue: bool) -> HuArray:
    """Paint tissue over tissue, each border one voxel wide."""
    hu = np.full(frame.shape, -1000.0, dtype=np.float32)

    def paint(distance: HuArray, value: float) -> None:
        cover = np.clip(0.5 - distance / edge_mm, 0, 1)
        np.add(hu, cover * (value - hu), out=hu)

    if soft_tissue:
        soft = fields.soft
        for depth, value in ((0.0, 10.0), (2.0, -80.0), (5.0, 50.0)):
            paint(soft + depth, value)
        paint(np.maximum(fields.orbit, soft + 2.5), -85.0)
        paint(union(frame, anatomy.EYE_MUSCLES), 45.0)
        paint(union(frame, [anatomy.GLOBE]), 50.0)
        paint(union(frame, [anatomy.GLOBE]) + 1.5, 12.0)
        paint(union(frame, [anatomy.LENS]), 90.0)
    paint(fields.bone, 900.0)
    paint(fields.bone + 2.2, 450.0)
    if soft_tissue:
        paint(fields.cavity, 10.0)
        paint(fields.cavity + 2.5, 38.0)
        paint(fields.cavity + 7, 32.0)
        paint(union(frame, anatomy.VENTRICLES, smooth_mm=3), 8.0)
        paint(union(frame, [anatomy.FORAMEN, anatomy.CANAL]), 10.0)
        paint(union(frame, [anatomy.CORD]), 38.0)
    else:
        paint(fields.cavity, -1000.0)
    paint(union(frame, anatomy.TEETH, smooth_mm=1), 1900.0)
    paint(np.minimum(union(frame, anatomy.SINUSES), fields.air), -995.0)
    paint(union(frame, [anatomy.COUCH]), 60.0)
    return hu


def _face(frame: Frame, fields: _Fields) -> BoolArray:
    """Label what a look from the front meets before bone, down to the last soft tissue; the air in front is part of it."""
    behind = merge(merge(fields.bone, fields.cavity), union(frame, anatomy.HULL, smooth_mm=10))
    open_to_front = ~np.logical_or.accumulate(behind <= 1, axis=1)
    levels = (frame.z < FACE_TOP_MM) & (frame.z > FACE_BOTTOM_MM)
    depth = np.where(frame.z < -70, -18 + 0.9 * (frame.z + 70), -18)  # the border behind goes forward below the jaw
    tissue = (fields.soft < 0) & open_to_front & levels & (frame.y < depth)
    before_the_last = np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(before_the_last & open_to_front, dtype=np.bool_)
