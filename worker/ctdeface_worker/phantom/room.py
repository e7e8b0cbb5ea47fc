"""Objects around and on a head in the scanner."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import HuArray, Volume
from ctdeface_worker.imaging.hounsfield import SKIN_HU
from ctdeface_worker.phantom import variants
from ctdeface_worker.phantom.head import Phantom
from ctdeface_worker.phantom.scan import points
from ctdeface_worker.phantom.shapes import Arch, Ellipsoid, Limb, Shape

SHEET_ENDS_MM = 60.0
"""Sheets end at this y, so that the back of the head stays free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Objects around the head.

    Attributes:
        couch: "none", "shell" or "slab".
        couch_mm: distance of the couch behind its usual place.
        holder: whether the head is in a cup-shaped holder.
        arms: whether both arms are raised beside the head.
        wires: number of thin objects (leads, lines) at random places.
    """

    couch: str = "shell"
    couch_mm: float = 0.0
    holder: bool = False
    arms: bool = False
    wires: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A strap, a bandage or a radiotherapy mask.

    Attributes:
        gap_mm: distance from the skin.
        thick_mm: thickness.
        low_mm: lowest height above the ear canals.
        high_mm: highest height above the ear canals.
        hu: value of the material.
    """

    gap_mm: float
    thick_mm: float
    low_mm: float
    high_mm: float
    hu: float


def furnished(head: Phantom, room: Room, rng: np.random.Generator) -> Phantom:
    """Add the objects in the air around a scanned head."""
    x, y, z = points(head.volume.geometry)
    hu = head.volume.hu.copy()
    for shape, value in _things(room, rng):
        _, row_mm, _ = head.volume.geometry.spacing_mm
        cover = np.clip(
            0.5 - shape.distance(np.abs(x) if shape.mirrored else x, y, z) / row_mm, 0, 1
        )
        np.copyto(hu, hu + cover * np.maximum(value - hu, 0), where=hu < SKIN_HU)
    return _with(head, hu)


def strapped(head: Phantom, sheet: Sheet) -> Phantom:
    """Put a sheet over the skin of an unrotated model."""
    from_skin = ndimage.distance_transform_edt(
        head.volume.hu < SKIN_HU, sampling=head.volume.geometry.spacing_mm
    )
    _, y, z = points(head.volume.geometry)
    covered = (from_skin > sheet.gap_mm) & (from_skin <= sheet.gap_mm + sheet.thick_mm)
    covered &= (z > sheet.low_mm) & (z < sheet.high_mm)
    covered &= (y < SHEET_ENDS_MM) & (head.volume.hu < SKIN_HU)
    return _with(head, np.where(covered, np.float32(sheet.hu), head.volume.hu))


def _things(room: Room, rng: np.random.Generator) -> list[tuple[Shape, float]]:
    back = 100 + room.couch_mm
    things: list[tuple[Shape, float]] = []
    if room.couch == "shell":
        things.append(
            (Arch((0, back - 60, 0), (float(rng.uniform(110, 200)), -72), 2.0, 400), 60.0)
        )
    elif room.couch == "slab":
        things.extend(
            [
                (Limb((-200, back + 14, z), (200, back + 14, z), (9, 9)), -150.0)
                for z in range(-240, 241, 15)
            ]
        )
    if room.holder:
        things.append(
            (Arch((0, back - 75, 30), (100, -85), 4.0, 90), float(rng.uniform(-500, 150)))
        )
    if room.arms:
        out = float(rng.uniform(-12, 20))
        limb = Limb(
            (132 + out, 30, -240),
            (145 + out, float(rng.uniform(-40, 60)), 200),
            (42, 32),
            mirrored=True,
        )
        things.extend([(Limb(limb.start, limb.end, (12, 10), mirrored=True), 900.0), (limb, 40.0)])
    for _ in range(room.wires):
        start, end = (rng.uniform((-130, -140, -160), (130, 100, 140)) for _ in range(2))
        radius = float(rng.uniform(1.0, 4.0))
        ends = [(float(at[0]), float(at[1]), float(at[2])) for at in (start, end)]
        things.append((Limb(ends[0], ends[1], (radius, radius)), float(rng.uniform(-100, 1500))))
    return things


def with_tube(head: Phantom, rng: np.random.Generator) -> Phantom:
    """Add a breathing tube, an oxygen mask or both."""
    choice = int(rng.integers(3))
    x, y, z = points(head.volume.geometry)
    hu = head.volume.hu
    if choice != 1:
        side, out = float(rng.uniform(-15, 15)), float(rng.uniform(-160, -125))
        radius = float(rng.uniform(3, 6.5))
        tube = Limb(
            (side / 3, -70, -48), (side, out, float(rng.uniform(-90, -40))), (radius, radius)
        ).distance(x, y, z)
        hu = np.where(
            (np.abs(tube + 0.75) < 1.5) & (hu < SKIN_HU), np.float32(rng.uniform(0, 190)), hu
        )
    if choice != 0:
        lift = float(rng.uniform(-8, 8))
        mask = Ellipsoid((0, -92, -30 + lift), (36, float(rng.uniform(36, 48)), 46)).distance(
            x, y, z
        )
        hu = np.where(
            (np.abs(mask) < 1.5) & (hu < SKIN_HU) & (y < -80),
            np.float32(rng.uniform(-100, 190)),
            hu,
        )
    return _with(head, hu)


def with_metal(head: Phantom) -> Phantom:
    """Add amalgam fillings to a model, without streaks."""
    x, y, z = points(head.volume.geometry)
    hu = head.volume.hu
    for filling in variants.FILLINGS:
        hu = np.where(filling.distance(np.abs(x), y, z) < 0, np.float32(3000), hu)
    return _with(head, hu)


def _with(head: Phantom, hu: HuArray) -> Phantom:
    volume = Volume(
        hu=np.asarray(hu, dtype=np.float32), valid=head.volume.valid, geometry=head.volume.geometry
    )
    return Phantom(seed=head.seed, volume=volume, face=head.face, brain=head.brain)
