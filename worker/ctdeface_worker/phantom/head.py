"""Synthetic head CT with face and brain known by construction."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray, Geometry, HuArray, Volume, read_only
from ctdeface_worker.imaging.hounsfield import AIR_HU, DENSE_BONE_HU
from ctdeface_worker.phantom import anatomy
from ctdeface_worker.phantom.build import Anatomy, build
from ctdeface_worker.phantom.shapes import Frame, Point, carve, merge, union

SMALL_MM = (3.0, 2.0, 2.0)
"""Coarse spacing for tests, at which a head takes about a second."""

FRONT_MM, BACK_MM, SIDE_MM = -136.0, 120.0, 128.0
FACE_TOP_MM, FACE_BOTTOM_MM = 62.0, -106.0
FACE_BACK_MM, JAW_MM = -12.0, -70.0
FACE_TO_BONE_MM = 1.0
"""Distance from the bone at which the face ends."""
LEAST_MM = 3.0
"""Depth of skin that counts as face even where bone is nearer."""
FACE_HEIGHT_MM = 100.0
"""Height from the ear canals to below the chin."""
NOISE_HU = 6.0
USUAL_FAT_MM = 3.0
FAT_BY_HEIGHT = ((-20.0, 15.0, 60.0), (1.0, 0.35, 0.3))
"""Heights in mm, and the share of additional fat there: most in cheeks, chin and neck."""
LOWEST_HU, HIGHEST_HU = -1023.0, 3071.0
"""Range of 12 bits from -1024 HU, without the lowest value, which is reserved for padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A synthetic head with its ground truth.

    Attributes:
        seed: of the random generator.
        volume: the CT, axial, slices from the feet upward.
        face: soft tissue in front of the facial bones, and the air in front of it.
        brain: the whole cavity of the skull.
    """

    seed: int
    volume: Volume
    face: BoolArray
    brain: BoolArray

    def __post_init__(self) -> None:
        """Make the labels read-only."""
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
    """Make a head CT with noise, on a couch.

    Args:
        seed: sizes differ by a few percent between seeds.
        spacing_mm: (slice, row, column).
        top_mm: upper end above the ear canals; the vertex is at about 131 mm.
        bottom_mm: lower end above the ear canals; 70 leaves the crown alone, without a face.
        soft_tissue: False for a bare skull in air, like a phantom for quality control.

    Returns:
        The volume with face and brain. The face of a bare skull or of the crown alone is empty.
    """
    head = model(
        build(seed),
        spacing_mm=spacing_mm,
        reach_mm=(bottom_mm, top_mm),
        soft_tissue=soft_tissue,
        couch=True,
    )
    hu = ndimage.gaussian_filter(head.volume.hu, 0.45, output=np.float32)
    hu += np.random.default_rng(seed).standard_normal(hu.shape, dtype=np.float32) * NOISE_HU
    volume = Volume(
        hu=np.clip(hu, LOWEST_HU, HIGHEST_HU),
        valid=head.volume.valid,
        geometry=head.volume.geometry,
    )
    return Phantom(seed=seed, volume=volume, face=head.face, brain=head.brain)


def model(
    measures: Anatomy,
    *,
    spacing_mm: tuple[float, float, float],
    reach_mm: tuple[float, float],
    soft_tissue: bool = True,
    couch: bool = False,
) -> Phantom:
    """Make a head without noise.

    Args:
        measures: of the head.
        spacing_mm: (slice, row, column).
        reach_mm: lower and upper end above the ear canals.
        soft_tissue: False for a bare skull in air.
        couch: whether to add a couch.
    """
    geometry = _geometry(spacing_mm, reach_mm[1], reach_mm[0])
    frame = _frame(geometry, measures)
    fields = _fields(frame, measures)
    hu = (
        _painted(frame, fields, measures, max(spacing_mm))
        if soft_tissue
        else _skull(frame, fields, measures, max(spacing_mm))
    )
    if couch:
        _paint(hu, union(frame, [anatomy.COUCH]), 60.0, max(spacing_mm))
    volume = Volume(
        hu=np.clip(hu, LOWEST_HU, HIGHEST_HU),
        valid=np.ones(hu.shape, dtype=np.bool_),
        geometry=geometry,
    )
    face = (
        _face(frame, fields, measures) & ((hu < DENSE_BONE_HU) | (fields.soft > -LEAST_MM))
        if soft_tissue
        else np.zeros(hu.shape, dtype=np.bool_)
    )
    return Phantom(seed=0, volume=volume, face=face, brain=np.asarray(fields.cavity < 0))


def _geometry(spacing_mm: tuple[float, float, float], top_mm: float, bottom_mm: float) -> Geometry:
    dz, dy, dx = spacing_mm
    shape = (
        round((top_mm - bottom_mm) / dz),
        round((BACK_MM - FRONT_MM) / dy),
        round(2 * SIDE_MM / dx),
    )
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = dz, dy, dx, 1
    affine[:3, 3] = (dx / 2 - SIDE_MM, FRONT_MM + dy / 2, bottom_mm + dz / 2)
    return Geometry.from_affine(shape, affine)


def _frame(geometry: Geometry, measures: Anatomy) -> Frame:
    """Return the voxels' coordinates in the head's frame.

    They are patient mm divided by the head's scale, and below the ear canals also by the relative
    height of the face.
    """
    start, counts = geometry.slice_origins_lps[0], geometry.shape
    spacing, scale = geometry.spacing_mm, measures.scale[::-1]
    z, y, x = (
        ((start[2 - k] + np.arange(counts[k]) * spacing[k]) / scale[k]).astype(np.float32)
        for k in range(3)
    )
    lowest = -FACE_HEIGHT_MM - measures.face_mm
    in_face = z * FACE_HEIGHT_MM / (FACE_HEIGHT_MM + measures.face_mm)
    z = np.where(z > 0, z, np.where(z > lowest, in_face, z + measures.face_mm))
    return Frame(x=x[None, None, :], y=y[None, :, None], z=z.astype(np.float32)[:, None, None])


def in_model(point: Point, measures: Anatomy) -> Point:
    """Convert a point from the head's frame to model mm.

    This is the inverse of `_frame`.
    """
    x, y, z = point
    below = (
        z * (FACE_HEIGHT_MM + measures.face_mm) / FACE_HEIGHT_MM
        if z > -FACE_HEIGHT_MM
        else z - measures.face_mm
    )
    scale = measures.scale
    return (x * scale[0], y * scale[1], (z if z > 0 else below) * scale[2])


def _fields(frame: Frame, measures: Anatomy) -> _Fields:
    orbit = union(frame, [anatomy.ORBIT], margin=12)
    cavity = union(frame, anatomy.CEREBRUM, smooth_mm=12, margin=40)
    # floor of the anterior and middle fossa, highest in the middle
    floor = 14 - 0.34 * frame.y + 6 * np.exp(-((frame.x / 14) ** 2))
    behind = np.maximum(frame.y + 8, 0) * 1.2
    cavity = np.asarray(carve(cavity, frame.z - floor + behind, 10), dtype=np.float32)
    cavity = carve(cavity, orbit - 4, 4)
    vault = cavity - measures.vault_mm
    bones = (*anatomy.MIDFACE, *anatomy.SKULL_BASE, *anatomy.brow(measures))
    bone = merge(union(frame, bones, smooth_mm=6, margin=16), vault, 5)
    walls = np.maximum(orbit - 3, -80 + 0.006 * frame.x**2 - frame.y)
    bone = carve(merge(bone, walls.astype(np.float32), 3), orbit)
    jaw = union(frame, anatomy.jaw(measures), smooth_mm=8, margin=16)
    soft = _skin(frame, measures, merge(merge(bone, vault), jaw, 8), vault)
    air = union(frame, anatomy.airways(measures), smooth_mm=2)
    air = carve(air, union(frame, anatomy.CONCHAE))
    bone = carve(bone, air - 1)
    bone = merge(bone, jaw)
    bone = merge(bone, _spine(frame, measures))
    bone = carve(carve(bone, cavity), union(frame, [anatomy.FORAMEN]))
    return _Fields(cavity=cavity, bone=bone, soft=soft, orbit=orbit, air=air)


def _skin(frame: Frame, measures: Anatomy, bone: HuArray, vault: HuArray) -> HuArray:
    wide = measures.fillet
    soft = merge(vault - measures.scalp_mm, bone - 5, 6)
    relief = union(frame, anatomy.relief(measures), smooth_mm=18 * wide, margin=30)
    soft = merge(soft, relief, 14 * wide)
    soft = merge(soft, union(frame, anatomy.neck(measures), smooth_mm=20, margin=40), 22 * wide)
    fat = np.interp(frame.z, *FAT_BY_HEIGHT).astype(np.float32)
    soft = soft - (measures.fat_mm - USUAL_FAT_MM) * fat
    soft = merge(soft, union(frame, anatomy.features(measures), smooth_mm=5, margin=30), 7 * wide)
    soft = merge(soft, union(frame, anatomy.ears(measures), smooth_mm=3, margin=10), 3)
    soft = carve(soft, union(frame, [anatomy.concha(measures)], margin=6), 3)
    return carve(soft, union(frame, [anatomy.lips_apart(measures)], margin=4), 3)


def _spine(frame: Frame, measures: Anatomy) -> HuArray:
    """Return vertebrae 18 mm apart, with softer disks between them."""
    spine = carve(
        union(frame, anatomy.spine(measures), smooth_mm=4),
        union(frame, [anatomy.canal(measures, 8)]),
    )
    return np.asarray(
        spine + 3 * np.clip(np.cos(2 * np.pi * frame.z / 18), 0, 1) ** 4, dtype=np.float32
    )


def _paint(hu: HuArray, distance: HuArray, value: float, edge_mm: float) -> None:
    """Paint a solid, with a border one voxel wide."""
    near = distance < edge_mm / 2
    cover = np.minimum(0.5 - distance[near] / edge_mm, 1)
    hu[near] += cover * (value - hu[near])


def _painted(frame: Frame, fields: _Fields, measures: Anatomy, edge_mm: float) -> HuArray:
    """Paint all tissues, from the skin inward."""
    hu = np.full(frame.shape, AIR_HU, dtype=np.float32)
    soft, cavity, globe = fields.soft, fields.cavity, union(frame, [anatomy.globe(measures)])
    more = measures.atrophy_mm
    layers: tuple[tuple[HuArray, float], ...] = (
        (soft, 10.0),
        (soft + 2, -80.0),
        (soft + 2 + measures.fat_mm, 50.0),
        (np.maximum(fields.orbit, soft + 2.5), -85.0),
        (union(frame, anatomy.EYE_MUSCLES), 45.0),
        (globe, 50.0),
        (globe + 1.5, 12.0),
        (union(frame, [anatomy.lens(measures)]), 90.0),
        (fields.bone, measures.bone_hu),
        (fields.bone + 2.2, measures.marrow_hu),
        (cavity, 10.0),
        (cavity + 2.5 + more, 38.0),
        (cavity + 7 + more, 32.0),
        (union(frame, anatomy.ventricles(measures), smooth_mm=3), 8.0),
        (union(frame, [anatomy.FORAMEN, anatomy.canal(measures, 8)]), 10.0),
        (union(frame, [anatomy.canal(measures, 5)]), 38.0),
        (np.maximum(union(frame, anatomy.vessels(measures)), soft + 4), measures.vessel_hu),
        (union(frame, anatomy.teeth(measures), smooth_mm=1), 1900.0),
        (union(frame, anatomy.sinuses(measures)), 20.0 if measures.opaque_sinuses else -995.0),
        (fields.air, -995.0),
    )
    for distance, value in layers:
        _paint(hu, distance, value, edge_mm)
    return hu


def _skull(frame: Frame, fields: _Fields, measures: Anatomy, edge_mm: float) -> HuArray:
    """Paint bone and teeth alone."""
    hu = np.full(frame.shape, AIR_HU, dtype=np.float32)
    for distance, value in (
        (fields.bone, measures.bone_hu),
        (fields.bone + 2.2, measures.marrow_hu),
        (fields.cavity, AIR_HU),
        (union(frame, anatomy.teeth(measures), smooth_mm=1), 1900.0),
        (np.minimum(union(frame, anatomy.sinuses(measures)), fields.air), -995.0),
    ):
        _paint(hu, distance, value, edge_mm)
    return hu


def _face(frame: Frame, fields: _Fields, measures: Anatomy) -> BoolArray:
    """Label the face: soft tissue and air in front of bone.

    The face is everything that a ray from the front meets before bone, up to the last soft tissue
    on that ray.
    """
    hull = union(frame, anatomy.hull(measures), smooth_mm=10)
    behind = merge(merge(fields.bone, fields.cavity), hull)
    open_to_front = ~np.logical_or.accumulate(
        (behind <= FACE_TO_BONE_MM) & (fields.soft < -LEAST_MM), axis=1
    )
    chin_z = anatomy.lowered((0, -72, FACE_BOTTOM_MM), measures)[2] - measures.double_chin_mm / 2
    levels = (frame.z < FACE_TOP_MM) & (frame.z > chin_z)
    jaw_z = JAW_MM + chin_z - FACE_BOTTOM_MM
    # below the jaw the border moves forward
    depth = np.where(frame.z < jaw_z, FACE_BACK_MM + 0.9 * (frame.z - jaw_z), FACE_BACK_MM)
    tissue = (fields.soft < 0) & open_to_front & levels & (frame.y < depth)
    before_the_last = np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(before_the_last & open_to_front, dtype=np.bool_)
