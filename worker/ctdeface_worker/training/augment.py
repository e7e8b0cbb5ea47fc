"""Augmentation of real volumes.

It changes position, slices, field of view, noise, streaks and objects.
"""

import numpy as np

from ctdeface_worker.imaging.domain import FloatArray, Geometry, Volume
from ctdeface_worker.phantom.disturbance import Disturbance, disturbed
from ctdeface_worker.phantom.head import Phantom
from ctdeface_worker.phantom.room import Room, furnished
from ctdeface_worker.phantom.scan import Scan, acquire, in_patient
from ctdeface_worker.training.labels import TRAINING_GRID_MM, Labeled, on_grid

BEHIND_FACE_MM = 60.0
"""Heads are rotated about a point this far behind the middle of the face."""
MOUTH_MM = (0.0, -50.0, -20.0)
"""Origin of metal streaks, relative to that point."""


def varied(labeled: Labeled, rng: np.random.Generator) -> Labeled:
    """Return a volume with another scan and position.

    Args:
        labeled: on the training grid, with a face.
        rng: the source of all random numbers.
    """
    head = _centered(labeled)
    low, high = _corners(head.volume.geometry)
    scan = _scan(low, high, rng)
    seen = acquire(head, scan, rng)
    room = Room(
        couch="none",
        arms=bool(rng.random() < 0.08),
        wires=int(rng.integers(1, 4)) if rng.random() < 0.3 else 0,
    )
    x, y, z = in_patient(MOUTH_MM, scan)
    how = Disturbance(
        blur_mm=float(rng.uniform(0, 1.5)),
        noise_hu=float(np.exp(rng.uniform(0, np.log(30)))),
        grain_mm=float(rng.choice([0.0, 2.5])),
        streak_hu=float(rng.uniform(100, 600)) if rng.random() < 0.25 else 0.0,
        streak_from=(float(x), float(y), float(z)),
        round_field=bool(rng.random() < 0.15),
    )
    made = disturbed(furnished(seen, room, rng), how, rng)
    return on_grid(made.volume, made.face)


def _scan(low: FloatArray, high: FloatArray, rng: np.random.Generator) -> Scan:
    """Draw slices, position and field of view.

    Positions are relative to the middle of the head.
    """
    low, high = low.copy(), high.copy()
    kind = rng.random()
    if kind < 0.25:
        low[2] = max(low[2], rng.uniform(-80, 0))
    elif kind < 0.45:
        high[2] = min(high[2], rng.uniform(20, 90))
    elif kind < 0.6:
        side = rng.uniform(75, 110)
        low[0], high[0] = max(low[0], -side), min(high[0], side)
        high[1] = min(high[1], rng.uniform(60, 120))
    yaw, pitch, roll = (float(part) for part in rng.uniform(-30, 30, 3) * rng.random())
    return Scan(
        spacing_mm=(float(rng.uniform(TRAINING_GRID_MM, 6.0)), TRAINING_GRID_MM, TRAINING_GRID_MM),
        low_mm=(float(low[0]), float(low[1]), float(low[2])),
        high_mm=(float(high[0]), float(high[1]), float(high[2])),
        turn_degrees=(yaw, pitch, roll),
        tilt_degrees=float(rng.uniform(-20, 20)) if rng.random() < 0.15 else 0.0,
        bend_mm=float(rng.uniform(0, 8)),
        mirrored=bool(rng.random() < 0.5),
    )


def _centered(labeled: Labeled) -> Phantom:
    """Return the head with the origin at its middle."""
    geometry = labeled.volume.geometry
    middle = geometry.affine_lps @ np.append(np.argwhere(labeled.face).mean(axis=0), 1.0)
    shift = middle[:3] + np.array([0.0, BEHIND_FACE_MM, 0.0])
    moved = Geometry(
        shape=geometry.shape,
        row_step_lps=geometry.row_step_lps,
        column_step_lps=geometry.column_step_lps,
        slice_origins_lps=geometry.slice_origins_lps - shift,
    )
    volume = Volume(hu=labeled.volume.hu, valid=labeled.volume.valid, geometry=moved)
    no_brain = np.zeros(geometry.shape, dtype=np.bool_)
    return Phantom(seed=0, volume=volume, face=labeled.face, brain=no_brain)


def _corners(geometry: Geometry) -> tuple[FloatArray, FloatArray]:
    low = geometry.slice_origins_lps[0] - TRAINING_GRID_MM / 2
    return low, low + np.array(geometry.shape[::-1]) * TRAINING_GRID_MM
