"""What lies around a head in the scanner, and on it: couch, holder, arms, tubes, masks, straps."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import HuArray, Volume
from ctdeface_worker.phantom import variants
from ctdeface_worker.phantom.head import Phantom
from ctdeface_worker.phantom.scan import points
from ctdeface_worker.phantom.shapes import Arch, Ellipsoid, Limb, Shape

SKIN_HU = -300.0
SHEET_ENDS_MM = 60.0
"""Sheets do not go round the back of the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is there besides the head.

    Attributes:
        couch: "none", "shell" or "slab".
        couch_mm: how far the couch lies behind its usual place.
        holder: whether the head lies in a cup.
        arms: whether both arms are raised beside the head.
        wires: how many thin things (leads, lines) lie somewhere around.
    """

    couch: str = "shell"
    couch_mm: float = 0.0
    holder: bool = False
    arms: bool = False
    wires: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A strap, a bandage, or the mask of a radiotherapy couch.

    Attributes:
        gap_mm: from the skin.
        thick_mm: of the sheet.
        low_mm: lowest height above the ear canals.
        high_mm: highest height.
        hu: of the sheet.
    """

    gap_mm: float
    thick_mm: float
    low_mm: float
    high_mm: float
    hu: float


def furnished(head: Phantom, room: Room, chance: np.random.Generator) -> Phantom:
    """Put couch, holder, arms and wires around a scanned head; they fill air only."""
    x, y, z = points(head.volume.geometry)
    hu = head.volume.hu.copy()
    for shape, value in _things(room, chance):
        _, row_mm, _ = head.volume.geometry.spacing_mm
        cover = np.clip(
            0.5 - shape.distance(np.abs(x) if shape.mirrored else x, y, z) / row_mm, 0, 1
        )
        np.copyto(hu, hu + cover * np.maximum(value - hu, 0), where=hu < SKIN_HU)
    return _with(head, hu)


def strapped(head: Phantom, sheet: Sheet) -> Phantom:
    """Lay a sheet over the skin of a model that is not turned yet."""
    from_skin = ndimage.distance_transform_edt(
        head.volume.hu < SKIN_HU, sampling=head.volume.geometry.spacing_mm
    )
    _, y, z = points(head.volume.geometry)
    there = (
        (from_skin > sheet.gap_mm)
        & (from_skin <= sheet.gap_mm + sheet.thick_mm)
        & (z > sheet.low_mm)
        & (z < sheet.high_mm)
    )
    there &= (y < SHEET_ENDS_MM) & (head.volume.hu < SKIN_HU)
    return _with(head, np.where(there, np.float32(sheet.hu), head.volume.hu))


def _things(room: Room, chance: np.random.Generator) -> list[tuple[Shape, float]]:
    back = 100 + room.couch_mm
    things: list[tuple[Shape, float]] = []
    if room.couch == "shell":
        things.append(
            (Arch((0, back - 60, 0), (float(chance.uniform(110, 200)), -72), 2.0, 400), 60.0)
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
            (Arch((0, back - 75, 30), (100, -85), 4.0, 90), float(chance.uniform(-500, 150)))
        )
    if room.arms:
        out = float(chance.uniform(-12, 20))
        limb = Limb(
            (132 + out, 30, -240),
            (145 + out, float(chance.uniform(-40, 60)), 200),
            (42, 32),
            mirrored=True,
        )
        things.extend([(Limb(limb.start, limb.end, (12, 10), mirrored=True), 900.0), (limb, 40.0)])
    for _ in range(room.wires):
        start, end = (chance.uniform((-130, -140, -160), (130, 100, 140)) for _ in range(2))
        radius = float(chance.uniform(1.0, 4.0))
        ends = [(float(at[0]), float(at[1]), float(at[2])) for at in (start, end)]
        things.append((Limb(ends[0], ends[1], (radius, radius)), float(chance.uniform(-100, 1500))))
    return things


def with_tube(head: Phantom, chance: np.random.Generator) -> Phantom:
    """Put a breathing tube into the mouth of a model, an oxygen mask over it, or both."""
    choice = int(chance.integers(3))
    x, y, z = points(head.volume.geometry)
    hu = head.volume.hu
    if choice != 1:
        side, out = float(chance.uniform(-15, 15)), float(chance.uniform(-160, -125))
        radius = float(chance.uniform(3, 6.5))
        tube = Limb(
            (side / 3, -70, -48), (side, out, float(chance.uniform(-90, -40))), (radius, radius)
        ).distance(x, y, z)
        hu = np.where(
            (np.abs(tube + 0.75) < 1.5) & (hu < SKIN_HU), np.float32(chance.uniform(0, 190)), hu
        )
    if choice != 0:
        lift = float(chance.uniform(-8, 8))
        mask = Ellipsoid((0, -92, -30 + lift), (36, float(chance.uniform(36, 48)), 46)).distance(
            x, y, z
        )
        hu = np.where(
            (np.abs(mask) < 1.5) & (hu < SKIN_HU) & (y < -80),
            np.float32(chance.uniform(-100, 190)),
            hu,
        )
    return _with(head, hu)


def with_metal(head: Phantom) -> Phantom:
    """Fill teeth of a model with amalgam; the streaks come with the scan."""
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
