"""What archives do to a head: it is turned, scanned with a tilted gantry, full of metal, between arms, under a mask, stored otherwise."""

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.phantom.dicom import STORED_ORDER, Plane
from ctdeface_worker.phantom.head import HIGHEST_HU, LOWEST_HU, Phantom
from ctdeface_worker.phantom.shapes import Ellipsoid, Frame, Limb, Shape, carve, union

AIR_HU = -1000.0
ARMS_SIDE_MM = 60.0
"""Room on either side that arms need."""
ARMS: tuple[Shape, ...] = (Limb((132, 30, -140), (140, -10, 160), (40, 34), mirrored=True),)
ARM_BONES: tuple[Shape, ...] = (Limb((132, 30, -140), (140, -10, 160), (12, 10), mirrored=True),)
TUBE: tuple[Shape, ...] = (Limb((0, -80, -48), (6, -150, -62), (5.5, 5.5)),)
TUBE_WALL_MM = 1.5
MASK: tuple[Shape, ...] = (Ellipsoid((0, -92, -30), (36, 42, 46)),)
"""An oxygen mask stands on nose, cheeks and chin."""
MASK_WALL_MM = 2.0
FILLINGS: tuple[Shape, ...] = (
    Ellipsoid((23, -52, -46), (4, 5, 4), mirrored=True),
    Ellipsoid((14, -74, -52), (3, 3, 4), mirrored=True),
)
STREAK_HU = 500.0
STREAKED_MM = (-58.0, -38.0)


def turned(head: Phantom, *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Phantom:
    """Turn a head about its ear canals, in degrees; the field of view stays.

    Args:
        head: must reach beyond the field of view that is wanted, as what comes into view from
            outside is air.
        yaw: to the patient's left.
        pitch: positive lifts the chin.
        roll: positive lowers the patient's left ear.
    """
    turn = Rotation.from_euler("zxy", [yaw, -pitch, roll], degrees=True)
    points = _points(head.volume.geometry)
    return _resampled(
        head, head.volume.geometry, turn.inv().apply(points.reshape(-1, 3)).reshape(points.shape)
    )


def tilted(head: Phantom, degrees: float) -> Phantom:
    """Scan a head with a tilted gantry: the slices lean, their centers stay above each other."""
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
    """Keep the slices whose first voxel lies between two heights above the ear canals."""
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
    """Store an axial head as coronal or sagittal slices; the head lies the same."""
    order = STORED_ORDER[plane]
    affine = head.volume.geometry.affine_lps
    hu, face, brain = (
        head.volume.hu.transpose(order),
        head.face.transpose(order),
        head.brain.transpose(order),
    )
    moved = affine.copy()
    moved[:3, :3] = affine[:3, order]
    if (
        np.dot(np.cross(moved[:3, 2], moved[:3, 1]), moved[:3, 0]) < 0
    ):  # slices rise along the normal
        moved[:3, 3] += moved[:3, 0] * (hu.shape[0] - 1)
        moved[:3, 0] *= -1
        hu, face, brain = hu[::-1], face[::-1], brain[::-1]
    return _made(
        head,
        hu,
        (face, brain),
        Geometry.from_affine((hu.shape[0], hu.shape[1], hu.shape[2]), moved),
    )


def with_arms(head: Phantom) -> Phantom:
    """Raise both arms beside the head; the field of view grows to hold them."""
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
    hu = np.where(
        (arms < 0) & (hu < -300), np.where(bones < 0, np.float32(900), np.float32(40)), hu
    )
    return _made(head, hu, (np.pad(head.face, room), np.pad(head.brain, room)), wide)


def with_tubes(head: Phantom) -> Phantom:
    """Put a breathing tube into the mouth and an oxygen mask over it."""
    frame = _frame(head.volume.geometry)
    tube, mask = union(frame, TUBE), union(frame, MASK)
    wall = np.minimum(
        carve(tube, tube + TUBE_WALL_MM), np.maximum(carve(mask, mask + MASK_WALL_MM), frame.y + 80)
    )
    plastic = (wall < 0) & (head.volume.hu < -300) & (np.indices(frame.shape)[1] > 0)
    return _made(
        head,
        np.where(plastic, np.float32(120), head.volume.hu),
        (head.face, head.brain),
        head.volume.geometry,
    )


def with_metal(head: Phantom) -> Phantom:
    """Fill teeth with amalgam, which throws bright and dark streaks through mouth and cheeks."""
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
    """LPS mm of every voxel, (slice, row, column, xyz)."""
    _, rows, columns = (np.arange(n, dtype=np.float64) for n in geometry.shape)
    in_plane = (
        rows[:, None, None] * geometry.row_step_lps
        + columns[None, :, None] * geometry.column_step_lps
    )
    return np.asarray(geometry.slice_origins_lps[:, None, None] + in_plane[None])


def _resampled(head: Phantom, geometry: Geometry, points: FloatArray) -> Phantom:
    """Read an axial head at the given LPS points."""
    inverse = np.linalg.inv(head.volume.geometry.affine_lps)
    at = np.moveaxis(points @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    hu = ndimage.map_coordinates(head.volume.hu, at, order=1, cval=AIR_HU)
    face, brain = (
        ndimage.map_coordinates(label.astype(np.uint8), at, order=0, cval=0) > 0
        for label in (head.face, head.brain)
    )
    return _made(head, hu, (face, brain), geometry)


def _frame(geometry: Geometry) -> Frame:
    """Patient mm of an axial stack as broadcastable axes."""
    start, counts, spacing = geometry.slice_origins_lps[0], geometry.shape, geometry.spacing_mm
    z, y, x = (
        (start[2 - k] + np.arange(counts[k]) * spacing[k]).astype(np.float32) for k in range(3)
    )
    return Frame(x=x[None, None, :], y=y[None, :, None], z=z[:, None, None])
