"""Acquisition of a head: slices, field of view, position, gantry tilt."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU, DENSE_BONE_HU, SKIN_HU
from ctdeface_worker.phantom.head import Phantom

WAVES = 2
WAVE_MM = (150.0, 400.0)
"""Range of the wavelengths with which a head is bent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Parameters of one acquisition.

    Positions are patient mm; the origin is between the ear canals of the head before rotation.

    Attributes:
        spacing_mm: (slice, row, column).
        low_mm: lowest (x, y, z) of the field of view.
        high_mm: highest (x, y, z).
        turn_degrees: (yaw to the left, pitch with the chin up, roll with the left ear down).
        tilt_degrees: tilt of the gantry.
        bend_mm: largest displacement by which the head is bent out of its symmetry.
        mirrored: whether left and right are exchanged.
    """

    spacing_mm: tuple[float, float, float] = (3.0, 2.5, 2.5)
    low_mm: tuple[float, float, float] = (-128.0, -136.0, -124.0)
    high_mm: tuple[float, float, float] = (128.0, 120.0, 146.0)
    turn_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tilt_degrees: float = 0.0
    bend_mm: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wave:
    """A sinusoidal displacement of the head.

    Attributes:
        along: wave vector (x, y, z) in radians per mm.
        shift_mm: displacement (x, y, z) at the crest.
        phase: radians.
    """

    along: FloatArray
    shift_mm: FloatArray
    phase: float


def acquire(head: Phantom, scan: Scan, rng: np.random.Generator) -> Phantom:
    """Scan a head without noise, averaging through thick slices.

    Args:
        head: an axial model. Its grid must extend beyond the field of view, because everything
            outside the grid counts as air.
        scan: parameters of the acquisition.
        rng: random generator for bending the head.
    """
    geometry = geometry_of(scan)
    waves = _waves(scan.bend_mm, rng) if scan.bend_mm else ()
    thick = geometry.spacing_mm[0]
    step = min(head.volume.geometry.spacing_mm)
    layers = max(round(thick / step), 1)
    at = _in_head(_points(geometry), scan, waves)
    along = _in_head(np.stack([np.zeros(3), geometry.normal_lps]), scan, ())
    offsets = (np.arange(layers) - (layers - 1) / 2) * thick / layers
    above_air = head.volume.hu - np.float32(AIR_HU)
    total = sum(sampled(head, above_air, at + offset * (along[1] - along[0])) for offset in offsets)
    hu = total / np.float32(layers) + np.float32(AIR_HU)
    # face and brain never touch, because bone is between them: one field holds both
    labels = sampled(head, head.face.astype(np.float32) - head.brain, at)
    face, brain = np.asarray(labels >= 0.5), np.asarray(labels <= -0.5)
    face = (face & (hu < DENSE_BONE_HU)) | (_outermost(face, np.asarray(hu > SKIN_HU)) & ~brain)
    volume = Volume(
        hu=np.asarray(hu, dtype=np.float32),
        valid=np.ones(geometry.shape, dtype=bool),
        geometry=geometry,
    )
    return Phantom(seed=head.seed, volume=volume, face=face, brain=brain)


def in_patient(point: tuple[float, float, float], scan: Scan) -> FloatArray:
    """Convert a point of the head to patient mm.

    Bending is ignored.
    """
    x, y, z = point
    return np.asarray(rotation(scan).apply([-x if scan.mirrored else x, y, z]), dtype=np.float64)


def rotation(scan: Scan) -> Rotation:
    """Return the rotation from the head's axes to the patient's."""
    yaw, pitch, roll = scan.turn_degrees
    return Rotation.from_euler("zxy", [yaw, -pitch, roll], degrees=True)


def points(geometry: Geometry) -> tuple[HuArray, HuArray, HuArray]:
    """Return patient mm of the voxels of an axial stack.

    Args:
        geometry: axial slices, tilted or not.

    Returns:
        x, y and z as broadcastable arrays, index (slice, row, column).
    """
    origin = geometry.slice_origins_lps
    rows, columns = np.arange(geometry.shape[1]), np.arange(geometry.shape[2])
    x = (origin[0, 0] + columns * geometry.column_step_lps[0])[None, None, :]
    y = (origin[:, 1, None] + rows * geometry.row_step_lps[1])[:, :, None]
    z = (origin[:, 2, None] + rows * geometry.row_step_lps[2])[:, :, None]
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


def geometry_of(scan: Scan) -> Geometry:
    """Return the stack of an acquisition."""
    low, high = np.array(scan.low_mm), np.array(scan.high_mm)
    spacing = np.array(scan.spacing_mm)[::-1]
    columns, rows, slices = np.maximum(np.round((high - low) / spacing), 2).astype(int)
    lean = np.deg2rad(scan.tilt_degrees)
    row_step = spacing[1] * np.array([0.0, np.cos(lean), np.sin(lean)])
    first = low + spacing / 2
    middle = (rows - 1) / 2
    start = first + middle * (np.array([0.0, spacing[1], 0.0]) - row_step)
    return Geometry(
        shape=(int(slices), int(rows), int(columns)),
        row_step_lps=row_step,
        column_step_lps=np.array([spacing[0], 0.0, 0.0]),
        slice_origins_lps=start + np.arange(slices)[:, None] * np.array([0.0, 0.0, spacing[2]]),
    )


def _points(geometry: Geometry) -> FloatArray:
    """Return LPS mm of every voxel, index (slice, row, column, xyz)."""
    x, y, z = points(geometry)
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float64)


def _outermost(face: BoolArray, tissue: BoolArray) -> BoolArray:
    """Return the first two tissue voxels on each ray from the front.

    They are skin and count as face even where a coarse voxel contains bone as well.
    """
    before = face.copy()
    for step in (1, 2):
        before[:, step:] |= face[:, :-step]
    met = np.cumsum(tissue & before, axis=1, dtype=np.int16)
    return np.asarray(tissue & before & (met <= 2), dtype=np.bool_)


def _waves(bend_mm: float, rng: np.random.Generator) -> tuple[_Wave, ...]:
    """Draw waves of random direction, length and phase.

    Their displacements add up to at most `bend_mm`.
    """
    directions = rng.normal(0, 1, (WAVES, 2, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    lengths, phases = rng.uniform(*WAVE_MM, WAVES), rng.uniform(0, 2 * np.pi, WAVES)
    return tuple(
        _Wave(
            along=2 * np.pi * along / length, shift_mm=shift * bend_mm / WAVES, phase=float(phase)
        )
        for (along, shift), length, phase in zip(directions, lengths, phases, strict=True)
    )


def _in_head(at: FloatArray, scan: Scan, waves: tuple[_Wave, ...]) -> FloatArray:
    """Convert patient mm to mm of the unbent, unrotated head."""
    # row vectors times the matrix: the inverse rotation
    turned = (at.reshape(-1, 3) @ rotation(scan).as_matrix()).reshape(at.shape)
    bent = turned.copy()
    for wave in waves:
        bent += np.sin(turned @ wave.along + wave.phase)[..., None] * wave.shift_mm
    sides = np.array([-1.0 if scan.mirrored else 1.0, 1.0, 1.0])
    return np.asarray(bent * sides, dtype=np.float64)


def sampled(head: Phantom, field: HuArray, at: FloatArray) -> HuArray:
    """Interpolate a field of the head at points, 0 outside the grid."""
    geometry = head.volume.geometry
    index = (at - geometry.slice_origins_lps[0]) / np.array(geometry.spacing_mm)[::-1]
    values = ndimage.map_coordinates(field, index.reshape(-1, 3).T[::-1], order=1, cval=0.0)
    return np.asarray(values.reshape(at.shape[:-1]), dtype=np.float32)
