"""Synthetic scans in which there is no face: heads cropped to crown, back or neck, skulls without soft tissue, trunks, water, air."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ctdeface_worker.imaging.domain import Volume
from ctdeface_worker.phantom import faceless
from ctdeface_worker.phantom.build import draw
from ctdeface_worker.phantom.head import Phantom, make_head, model
from ctdeface_worker.phantom.scan import Scan, acquire
from ctdeface_worker.phantom.scenes import MODEL_MM, MODEL_REACH_MM, draw_scene, scanned
from ctdeface_worker.phantom.variants import cropped

SPACING_MM = (3.0, 2.5, 2.5)
CROWN_MM = (82.0, 100.0)
"""Lower ends above the ear canals; the forehead's soft tissue counts as face up to 62 mm, more where the head is turned."""
NECK_MM = (-140.0, -118.0)
"""Upper ends; the chin's lower border counts as face down to about -106 mm."""
BACK_MM = (10.0, 40.0)
"""Front ends of what shows the back of the head alone."""
TRUNKS: tuple[tuple[str, Callable[[], Volume]], ...] = (
    ("chest", partial(faceless.torso, lungs=True)),
    ("abdomen", partial(faceless.torso, lungs=False)),
    ("water", faceless.water_cylinder),
    ("air", faceless.empty_air),
)
KINDS = ("crown", "neck", "back", "skull")


def names(count: int) -> tuple[str, ...]:
    """Return the names of that many scans: trunks, water and air first, then the kinds made from heads in turn, seed after seed."""
    made = (
        f"{KINDS[number % len(KINDS)]}_{1 + number // len(KINDS)}"
        for number in range(max(count - len(TRUNKS), 0))
    )
    return (*(name for name, _ in TRUNKS), *made)[:count]


def make(name: str) -> Phantom:
    """Make the scan of a name; the same name always gives the same scan, and none has a voxel of face.

    Raises:
        KeyError: there is no such name.
    """
    trunks = dict(TRUNKS)
    kind, _, seed = name.partition("_")
    if not seed:
        volume = trunks[name]()
        nothing = np.zeros(volume.hu.shape, dtype=np.bool_)
        return Phantom(seed=0, volume=volume, face=nothing, brain=nothing.copy())
    return {"crown": _crown, "neck": _neck, "back": _back, "skull": _skull}[kind](int(seed))


def _crown(seed: int) -> Phantom:
    """The vault from above, as furnished and disturbed as any scene; cropped until nothing of the face is left."""
    chance = np.random.default_rng([seed, 11])
    drawn = draw_scene(seed, chance, unseen=bool(seed % 2))
    bottom = chance.uniform(*CROWN_MM)
    scan = replace(
        drawn.scan,
        low_mm=(drawn.scan.low_mm[0], drawn.scan.low_mm[1], float(bottom)),
        high_mm=(*drawn.scan.high_mm[:2], 150.0),
        turn_degrees=(drawn.scan.turn_degrees[0], 0.0, 0.0),
        tilt_degrees=0.0,
    )
    return scanned(replace(drawn, scan=scan), chance)


def _neck(seed: int) -> Phantom:
    """Neck and shoulders up to below the chin."""
    return _part(
        seed, high_mm=(150.0, 140.0, float(np.random.default_rng([seed, 12]).uniform(*NECK_MM)))
    )


def _back(seed: int) -> Phantom:
    """The back of head and neck, as in a field of view for the spine."""
    return _part(
        seed, low_mm=(-120.0, float(np.random.default_rng([seed, 13]).uniform(*BACK_MM)), -180.0)
    )


def _part(
    seed: int,
    *,
    low_mm: tuple[float, float, float] = (-150.0, -136.0, -190.0),
    high_mm: tuple[float, float, float] = (150.0, 140.0, 146.0),
) -> Phantom:
    anatomy = replace(draw(seed, unseen=bool(seed % 2)), open_mm=0.0)
    head = model(anatomy, spacing_mm=(MODEL_MM, MODEL_MM, MODEL_MM), reach_mm=MODEL_REACH_MM)
    return acquire(
        head,
        Scan(spacing_mm=SPACING_MM, low_mm=low_mm, high_mm=high_mm),
        np.random.default_rng([seed, 14]),
    )


def _skull(seed: int) -> Phantom:
    """A dry skull, whole or cut below or above."""
    skull = make_head(seed, spacing_mm=SPACING_MM, soft_tissue=False)
    bottom, top = ((-124.0, 146.0), (-20.0, 146.0), (-124.0, 90.0))[seed % 3]
    return cropped(skull, bottom_mm=bottom, top_mm=top)
