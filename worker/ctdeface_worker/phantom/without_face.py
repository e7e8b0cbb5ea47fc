"""Synthetic scans without a face.

They show heads cropped to crown, back or neck, skulls without soft tissue, trunks, water or air.
"""

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
"""Range of lower ends above the ear canals.

The soft tissue of the forehead counts as face up to 62 mm, and higher if the head is rotated.
"""
NECK_MM = (-140.0, -118.0)
"""Range of upper ends; the face ends below the chin at about -106 mm."""
BACK_MM = (10.0, 40.0)
"""Range of front ends (y) of fields of view that show the back of the head alone."""
TRUNKS: tuple[tuple[str, Callable[[], Volume]], ...] = (
    ("chest", partial(faceless.torso, lungs=True)),
    ("abdomen", partial(faceless.torso, lungs=False)),
    ("water", faceless.water_cylinder),
    ("air", faceless.empty_air),
)
KINDS = ("crown", "neck", "back", "skull")


def names(count: int) -> tuple[str, ...]:
    """Return the names of the first scans.

    Trunks, water and air come first, then each kind made from a head in turn, seed by seed.

    Args:
        count: number of names.
    """
    made = (
        f"{KINDS[number % len(KINDS)]}_{1 + number // len(KINDS)}"
        for number in range(max(count - len(TRUNKS), 0))
    )
    return (*(name for name, _ in TRUNKS), *made)[:count]


def make(name: str) -> Phantom:
    """Make the scan of a name, always the same one.

    Returns:
        A scan whose face is empty.

    Raises:
        KeyError: the name is unknown.
    """
    trunks = dict(TRUNKS)
    kind, _, seed = name.partition("_")
    if not seed:
        volume = trunks[name]()
        nothing = np.zeros(volume.hu.shape, dtype=np.bool_)
        return Phantom(seed=0, volume=volume, face=nothing, brain=nothing.copy())
    return {"crown": _crown, "neck": _neck, "back": _back, "skull": _skull}[kind](int(seed))


def _crown(seed: int) -> Phantom:
    """Return the crown of a scene, cropped above the face.

    Objects and artifacts are drawn as for any scene.
    """
    rng = np.random.default_rng([seed, 11])
    drawn = draw_scene(seed, rng, unseen=bool(seed % 2))
    bottom = rng.uniform(*CROWN_MM)
    scan = replace(
        drawn.scan,
        low_mm=(drawn.scan.low_mm[0], drawn.scan.low_mm[1], float(bottom)),
        high_mm=(*drawn.scan.high_mm[:2], 150.0),
        turn_degrees=(drawn.scan.turn_degrees[0], 0.0, 0.0),
        tilt_degrees=0.0,
    )
    return scanned(replace(drawn, scan=scan), rng)


def _neck(seed: int) -> Phantom:
    """Return neck and shoulders up to below the chin."""
    top = float(np.random.default_rng([seed, 12]).uniform(*NECK_MM))
    return _part(seed, high_mm=(150.0, 140.0, top))


def _back(seed: int) -> Phantom:
    """Return the back of head and neck."""
    front = float(np.random.default_rng([seed, 13]).uniform(*BACK_MM))
    return _part(seed, low_mm=(-120.0, front, -180.0))


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
    """Return a dry skull, whole or cropped below or above."""
    skull = make_head(seed, spacing_mm=SPACING_MM, soft_tissue=False)
    bottom, top = ((-124.0, 146.0), (-20.0, 146.0), (-124.0, 90.0))[seed % 3]
    return cropped(skull, bottom_mm=bottom, top_mm=top)
