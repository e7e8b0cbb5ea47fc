"""Variants of a head that occur in archives.

They cover rotation, gantry tilt, cropping, other planes, raised arms, tubes and metal.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU, SKIN_HU
from ctdeface_worker.phantom.dicom import STORED_ORDER, Plane
from ctdeface_worker.phantom.head import HIGHEST_HU, LOWEST_HU, Phantom
from ctdeface_worker.phantom.shapes import Ellipsoid, Frame, Limb, Shape, carve, union

ARMS_SIDE_MM = 60.0
"""Space that arms need on either side."""
ARMS: tuple[Shape, ...] = (Limb((132, 30, -140), (140, -10, 160), (40, 34), mirrored=True),)
ARM_BONES: tuple[Shape, ...] = (Limb((132, 30, -140), (140, -10, 160), (12, 10), mirrored=True),)
TUBE: tuple[Shape, ...] = (Limb((0, -80, -48), (6, -150, -62), (5.5, 5.5)),)
TUBE_WALL_MM = 1.5
MASK: tuple[Shape, ...] = (Ellipsoid((0, -92, -30), (36, 42, 46)),)
"""Oxygen mask on nose, cheeks and chin."""
MASK_WALL_MM = 2.0
FILLINGS: tuple[Shape, ...] = (
    Ellipsoid((23, -52, -46), (4, 5, 4), mirrored=True),
    Ellipsoid((14, -74, -52), (3, 3, 4), mirrored=True),
)
STREAK_HU = 500.0
STREAKED_MM = (-58.0, -38.0)


def turned(head: Phantom, *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Phantom:
    """Rotate a head in a fixed field of view.

    The center of rotation is between the ear canals.

    Args:
        head: must extend beyond the wanted field of view, because everything outside counts as
            air.
        yaw: degrees to the patient's left.
        pitch: degrees, positive lifts the chin.
        roll: degrees, positive lowers the patient's left ear.
    """
    turn = Rotation.from_euler("zxy", [yaw, -pitch, roll], degrees=True)
    points = _points(head.volume.geometry)
    return _resampled(
        head, head.volume.geometry, turn.inv().apply(points.reshape(-1, 3)).reshape(points.shape)
    )


def tilted(head: Phantom, degrees: float) -> Phantom:
    """Scan a head with a tilted gantry.

    The centers of the slices stay above each other.
    """
    straight = head.volume.geometry
    lean = np.deg2rad(degrees)
    _, row_mm, _ = straight.spacing_mm
    row_step = row_mm * np.array([0.0, np.cos(lean), np.sin(lean)])
    middle = (straight.shape[1] - 1) / 2
    leaning = Geometry(
        shape=straight.shape,
        row_step_lps=row_step,
        column_step_lps=straight.column_step_lps,
        slice_origins_lps=straight.slice_origins_lps + middle * (straight.row_step_lps - row_step),
    )
    return _resampled(head, leaning, _points(leaning))


def cropped(head: Phantom, *, bottom_mm: float, top_mm: float) -> Phantom:
    """Keep the slices between two heights.

    Args:
        head: an axial head.
        bottom_mm: lowest height of a slice's first voxel above the ear canals.
        top_mm: highest height.
    """
    z = head.volume.geometry.slice_origins_lps[:, 2]
    kept = (z > bottom_mm) & (z < top_mm)
    geometry = head.volume.geometry
    part = Geometry(
        shape=(int(kept.sum()), *geometry.shape[1:]),
        row_step_lps=geometry.row_step_lps,
        column_step_lps=geometry.column_step_lps,
        slice_origins_lps=geometry.slice_origins_lps[kept],
    )
    return _made(head, head.volume.hu[kept], (head.face[kept], head.brain[kept]), part)


def stored_as(head: Phantom, plane: Plane) -> Phantom:
    """Store an axial head as slices of another plane."""
    order = STORED_ORDER[plane]
    affine = head.volume.geometry.affine_lps
    hu = head.volume.hu.transpose(order)
    face, brain = head.face.transpose(order), head.brain.transpose(order)
    moved = affine.copy()
    moved[:3, :3] = affine[:3, order]
    # slices must follow each other along the normal
    if np.dot(np.cross(moved[:3, 2], moved[:3, 1]), moved[:3, 0]) < 0:
        moved[:3, 3] += moved[:3, 0] * (hu.shape[0] - 1)
        moved[:3, 0] *= -1
        hu, face, brain = hu[::-1], face[::-1], brain[::-1]
    geometry = Geometry.from_affine((hu.shape[0], hu.shape[1], hu.shape[2]), moved)
    return _made(head, hu, (face, brain), geometry)


def with_arms(head: Phantom) -> Phantom:
    """Add raised arms beside the head and widen the field of view."""
    geometry = head.volume.geometry
    columns = round(ARMS_SIDE_MM / geometry.spacing_mm[2])
    room = ((0, 0), (0, 0), (columns, columns))
    wide = Geometry(
        shape=(*geometry.shape[:2], geometry.shape[2] + 2 * columns),
        row_step_lps=geometry.row_step_lps,
        column_step_lps=geometry.column_step_lps,
        slice_origins_lps=geometry.slice_origins_lps - columns * geometry.column_step_lps,
    )
    hu = np.pad(head.volume.hu, room, constant_values=AIR_HU)
    frame = _frame(wide)
    arms, bones = union(frame, ARMS), union(frame, ARM_BONES)
    arm_hu = np.where(bones < 0, np.float32(900), np.float32(40))
    hu = np.where((arms < 0) & (hu < SKIN_HU), arm_hu, hu)
    return _made(head, hu, (np.pad(head.face, room), np.pad(head.brain, room)), wide)


def with_tubes(head: Phantom) -> Phantom:
    """Add a breathing tube and an oxygen mask."""
    frame = _frame(head.volume.geometry)
    tube, mask = union(frame, TUBE), union(frame, MASK)
    wall = np.minimum(
        carve(tube, tube + TUBE_WALL_MM), np.maximum(carve(mask, mask + MASK_WALL_MM), frame.y + 80)
    )
    plastic = (wall < 0) & (head.volume.hu < SKIN_HU) & (np.indices(frame.shape)[1] > 0)
    hu = np.where(plastic, np.float32(120), head.volume.hu)
    return _made(head, hu, (head.face, head.brain), head.volume.geometry)


def with_metal(head: Phantom) -> Phantom:
    """Add amalgam fillings with their bright and dark streaks."""
    frame = _frame(head.volume.geometry)
    fillings = union(frame, FILLINGS) < 0
    around = np.arctan2(frame.x, -(frame.y + 58)) * np.ones_like(frame.z)
    distance = np.hypot(frame.x, frame.y + 58) * np.ones_like(frame.z)
    waves = np.cos(9 * around + 1) + np.cos(17 * around + 2)
    level = (frame.z > STREAKED_MM[0]) & (frame.z < STREAKED_MM[1])
    streaks = STREAK_HU * waves * np.exp(-distance / 30) * level
    hu = np.where(fillings, np.float32(HIGHEST_HU), head.volume.hu + streaks)
    return _made(head, hu, (head.face, head.brain), head.volume.geometry)


def _made(
    head: Phantom, hu: HuArray, labels: tuple[BoolArray, BoolArray], geometry: Geometry
) -> Phantom:
    within = np.clip(hu, LOWEST_HU, HIGHEST_HU).astype(np.float32)
    volume = Volume(hu=within, valid=np.ones(hu.shape, dtype=bool), geometry=geometry)
    return Phantom(seed=head.seed, volume=volume, face=labels[0], brain=labels[1])


def _points(geometry: Geometry) -> FloatArray:
    """Return LPS mm of every voxel, index (slice, row, column, xyz)."""
    _, rows, columns = (np.arange(n, dtype=np.float64) for n in geometry.shape)
    in_plane = (
        rows[:, None, None] * geometry.row_step_lps
        + columns[None, :, None] * geometry.column_step_lps
    )
    return np.asarray(geometry.slice_origins_lps[:, None, None] + in_plane[None])


def _resampled(head: Phantom, geometry: Geometry, points: FloatArray) -> Phantom:
    """Resample an axial head at LPS points (slice, row, column, xyz)."""
    inverse = np.linalg.inv(head.volume.geometry.affine_lps)
    at = np.moveaxis(points @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    hu = ndimage.map_coordinates(head.volume.hu, at, order=1, cval=AIR_HU)
    face, brain = (
        ndimage.map_coordinates(label.astype(np.uint8), at, order=0, cval=0) > 0
        for label in (head.face, head.brain)
    )
    return _made(head, hu, (face, brain), geometry)


def _frame(geometry: Geometry) -> Frame:
    """Return patient mm of an axial stack as broadcastable axes."""
    start, counts, spacing = geometry.slice_origins_lps[0], geometry.shape, geometry.spacing_mm
    z, y, x = (
        (start[2 - k] + np.arange(counts[k]) * spacing[k]).astype(np.float32) for k in range(3)
    )
    return Frame(x=x[None, None, :], y=y[None, :, None], z=z[:, None, None])
