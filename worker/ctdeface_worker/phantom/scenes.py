"""A head as it comes from a scanner: drawn, dressed, turned, furnished, scanned and disturbed, all from one seed."""

from dataclasses import dataclass, replace

import numpy as np

from ctdeface_worker.phantom.build import Anatomy, draw
from ctdeface_worker.phantom.disturbance import Disturbance, disturbed
from ctdeface_worker.phantom.head import Phantom, model
from ctdeface_worker.phantom.room import Room, Sheet, furnished, strapped, with_metal, with_tube
from ctdeface_worker.phantom.scan import Scan, acquire, in_patient

MODEL_MM, CLINICAL_MODEL_MM = 2.5, 1.25
"""Voxels of the model that is scanned. With a truth drawn at 0.8 mm, that of the latter has a Dice of 0.987, of the former 0.976."""
CLINICAL_FINER = 2.5
"""Makes pixels of 0.7 to 1.6 mm, as scans of heads have them, out of those of 1.8 to 4.0 mm."""
MODEL_REACH_MM = (-190.0, 150.0)
METAL_MM = (0.0, -58.0, -48.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that is drawn.

    Attributes:
        anatomy: of the head.
        scan: of the scanner.
        room: what is around.
        disturbance: of the image.
        tube: whether there is a tube or an oxygen mask.
        metal: whether teeth are filled.
        sheet: strap, bandage or mask, if any.
    """

    anatomy: Anatomy
    scan: Scan
    room: Room
    disturbance: Disturbance
    tube: bool = False
    metal: bool = False
    sheet: Sheet | None = None


def scene(seed: int, *, unseen: bool = False, clinical: bool = False) -> Phantom:
    """Make the phantom of a seed; the same seed always gives the same one.

    Args:
        seed: of everything.
        unseen: a head and an image such as training never sees.
        clinical: with the pixels of clinical scans, 0.7 to 1.6 mm, instead of 1.8 to 4.0 mm; takes
            about four times as long.
    """
    chance = chance_of(seed, unseen=unseen)
    drawn = draw_scene(seed, chance, unseen=unseen)
    if not clinical:
        return scanned(drawn, chance)
    slice_mm, row_mm, column_mm = drawn.scan.spacing_mm
    scan = replace(
        drawn.scan, spacing_mm=(slice_mm, row_mm / CLINICAL_FINER, column_mm / CLINICAL_FINER)
    )
    return scanned(replace(drawn, scan=scan), chance, model_mm=CLINICAL_MODEL_MM)


def chance_of(seed: int, *, unseen: bool = False) -> np.random.Generator:
    """Return what everything but the head of a seed's scene is drawn from."""
    return np.random.default_rng([seed, 7, int(unseen)])


def scanned(drawn: Scene, chance: np.random.Generator, *, model_mm: float = MODEL_MM) -> Phantom:
    """Make the phantom of a scene, from a model with voxels of that edge."""
    head = model(drawn.anatomy, spacing_mm=(model_mm, model_mm, model_mm), reach_mm=MODEL_REACH_MM)
    if drawn.tube:
        head = with_tube(head, chance)
    if drawn.metal:
        head = with_metal(head)
    if drawn.sheet:
        head = strapped(head, drawn.sheet)
    seen = acquire(head, drawn.scan, chance)
    return disturbed(furnished(seen, drawn.room, chance), drawn.disturbance, chance)


def draw_scene(seed: int, chance: np.random.Generator, *, unseen: bool = False) -> Scene:
    """Draw head, scanner and surroundings."""
    scan = _scan(chance)
    metal = bool(chance.random() < 0.3)
    return Scene(
        anatomy=draw(seed, unseen=unseen),
        scan=scan,
        room=Room(
            couch=str(chance.choice(["none", "shell", "shell", "slab"])),
            couch_mm=float(chance.uniform(0, 20)),
            holder=bool(chance.random() < 0.3),
            arms=bool(chance.random() < 0.12),
            wires=int(chance.integers(1, 4)) if chance.random() < 0.25 else 0,
        ),
        disturbance=_disturbance(chance, scan, metal=metal, unseen=unseen),
        tube=bool(chance.random() < 0.2),
        metal=metal,
        sheet=_sheet(chance) if chance.random() < 0.2 else None,
    )


def _scan(chance: np.random.Generator) -> Scan:
    thin = chance.random() < 0.05
    slice_mm = float(
        np.exp(
            chance.uniform(np.log(0.5), np.log(1.5))
            if thin
            else chance.uniform(np.log(1.5), np.log(7))
        )
    )
    pixel = float(chance.uniform(2.2, 3.2) if thin else chance.uniform(1.8, 4.0))
    much = float(chance.random()) ** 2
    yaw, pitch, roll = (float(part) for part in chance.uniform(-30, 30, 3) * much)
    low, high = _field(chance)
    return Scan(
        spacing_mm=(slice_mm, pixel, pixel),
        low_mm=low,
        high_mm=high,
        turn_degrees=(yaw, pitch, roll),
        tilt_degrees=float(chance.uniform(-25, 25)) if chance.random() < 0.15 else 0.0,
        bend_mm=float(chance.uniform(0, 6)),
        mirrored=bool(chance.random() < 0.5),
    )


def _field(
    chance: np.random.Generator,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Draw a field of view: whole heads, heads without neck or crown, narrow fields, wide ones."""
    side, front, back = (
        chance.uniform(105, 150),
        -chance.uniform(132, 160),
        chance.uniform(105, 140),
    )
    bottom, top = chance.uniform(-180, -110), chance.uniform(128, 150)
    kind = chance.random()
    if kind < 0.18:
        bottom = chance.uniform(-70, 10)
    elif kind < 0.32:
        top = chance.uniform(10, 100)
    elif kind < 0.42:
        side, back = chance.uniform(75, 100), chance.uniform(60, 105)
    elif kind < 0.48:
        bottom = chance.uniform(72, 85)  # the crown alone: no face
    return (float(-side), float(front), float(bottom)), (float(side), float(back), float(top))


def _disturbance(
    chance: np.random.Generator, scan: Scan, *, metal: bool, unseen: bool
) -> Disturbance:
    x, y, z = in_patient(METAL_MM, scan)
    return Disturbance(
        blur_mm=float(chance.uniform(0, 2.0)),
        noise_hu=float(np.exp(chance.uniform(np.log(3), np.log(40)))),
        grain_mm=float(chance.uniform(2.5, 4.0))
        if unseen
        else float(chance.choice([0.0, 1.5, 2.5])),
        streak_hu=float(chance.uniform(150, 700)) if metal else 0.0,
        streak_from=(float(x), float(y), float(z)),
        starved_hu=float(chance.uniform(0, 120)),
        round_field=bool(chance.random() < 0.2),
        through_slices=unseen,
    )


def _sheet(chance: np.random.Generator) -> Sheet:
    """Draw a mask over everything, or a strap over forehead or chin."""
    gap, thick, hu = (
        float(chance.uniform(*limits)) for limits in ((0, 4), (2.5, 4.5), (-250, 150))
    )
    low, high = -120.0, 120.0
    if chance.random() < 0.5:
        middle = float(chance.choice([55.0, -85.0])) + float(chance.uniform(-10, 10))
        low, high = middle - 14, middle + 14
    return Sheet(gap_mm=gap, thick_mm=thick, low_mm=low, high_mm=high, hu=hu)
