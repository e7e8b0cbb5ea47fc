"""Measures of a head and their random ranges.

Lengths in mm are added to an average adult's (see `anatomy`). Training draws from `RANGES`;
evaluation alone draws from the flanks on either side of each range (`FLANK`), with solids that are
rounded and joined differently (`UNSEEN_ROUNDNESS`, `UNSEEN_FILLET`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """Measures of one head.

    Attributes:
        scale: factors of the whole head along (x, y, z).
        vault_mm: thickness of the cranial vault.
        scalp_mm: from bone to skin over the vault.
        fat_mm: thickness of the fat under the skin; more than 3 makes face and neck fuller.
        brow_mm: prominence of the brow ridge.
        eye_mm: prominence of the eyes.
        nose_mm: added to the length of the nose.
        nose_width_mm: added to the width of the nose, each side.
        nose_bridge_mm: added to the height of the bridge.
        nose_tip_mm: distance by which the tip of the nose hangs down.
        lips_mm: fullness of the lips.
        chin_mm: added to the chin's prominence.
        jaw_mm: added to the width of the jaw, each side.
        face_mm: added to the height of the face below the eyes.
        cheek_mm: added to the fullness of the cheeks.
        double_chin_mm: fullness under the chin.
        ear_mm: added to the distance by which the ears stick out.
        ear_scale: factor of the ears' height and depth.
        neck_mm: added to the neck's radius.
        neck_back_mm: shift of the neck's lower end to the back.
        shoulder_mm: height of the shoulders above z = -160.
        open_mm: opening of the mouth between the front teeth.
        frontal_sinus: factor of the frontal sinus' size, 0 for none.
        atrophy_mm: added to the fluid around the brain and in the ventricles.
        toothless: whether the teeth are gone.
        opaque_sinuses: whether fluid fills the sinuses.
        bone_hu: value of compact bone.
        marrow_hu: value of spongy bone.
        vessel_hu: value of arteries, 45 without contrast agent.
        roundness: exponent of the soft shapes: 2 for ellipsoids, more for boxes.
        fillet: factor of the width of the fillets between soft shapes.
    """

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vault_mm: float = 7.0
    scalp_mm: float = 6.0
    fat_mm: float = 3.0
    brow_mm: float = 0.0
    eye_mm: float = 0.0
    nose_mm: float = 0.0
    nose_width_mm: float = 0.0
    nose_bridge_mm: float = 0.0
    nose_tip_mm: float = 0.0
    lips_mm: float = 0.0
    chin_mm: float = 0.0
    jaw_mm: float = 0.0
    face_mm: float = 0.0
    cheek_mm: float = 0.0
    double_chin_mm: float = 0.0
    ear_mm: float = 0.0
    ear_scale: float = 1.0
    neck_mm: float = 0.0
    neck_back_mm: float = 0.0
    shoulder_mm: float = 0.0
    open_mm: float = 0.0
    frontal_sinus: float = 1.0
    atrophy_mm: float = 0.0
    toothless: bool = False
    opaque_sinuses: bool = False
    bone_hu: float = 900.0
    marrow_hu: float = 450.0
    vessel_hu: float = 45.0
    roundness: float = 2.0
    fillet: float = 1.0


Range = tuple[float, float]

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "size": (0.93, 1.06),
        "across": (0.96, 1.05),
        "along": (0.96, 1.04),
        "upward": (0.96, 1.04),
        "vault_mm": (5.0, 9.0),
        "scalp_mm": (4.5, 8.5),
        "fat_mm": (1.5, 7.0),
        "brow_mm": (-1.0, 2.0),
        "eye_mm": (-2.0, 2.0),
        "nose_mm": (-4.0, 5.0),
        "nose_width_mm": (-1.0, 2.0),
        "nose_bridge_mm": (-1.5, 2.5),
        "nose_tip_mm": (-3.0, 4.0),
        "lips_mm": (-1.0, 2.5),
        "chin_mm": (-4.0, 4.0),
        "jaw_mm": (-4.0, 5.0),
        "face_mm": (-6.0, 6.0),
        "cheek_mm": (-4.0, 7.0),
        "double_chin_mm": (0.0, 10.0),
        "ear_mm": (-2.0, 6.0),
        "ear_scale": (0.85, 1.15),
        "neck_mm": (-8.0, 8.0),
        "neck_back_mm": (-12.0, 12.0),
        "shoulder_mm": (-20.0, 25.0),
        "frontal_sinus": (0.0, 1.3),
        "atrophy_mm": (0.0, 3.0),
        "bone_hu": (700.0, 1200.0),
        "marrow_hu": (300.0, 600.0),
    }
)
"""Ranges for training; the first four are factors of the whole head and of each axis."""

FLANK = 0.2
"""Width of the flanks outside the training range, as a share of the range."""
NEVER_BELOW: Mapping[str, float] = MappingProxyType(
    {"frontal_sinus": 0.0, "atrophy_mm": 0.0, "double_chin_mm": 0.0}
)
"""Measures without a lower flank, because lower values are impossible."""
OPEN_MOUTH = (0.3, (4.0, 20.0), (20.0, 24.0))
"""Share of open mouths; opening in mm in training and unseen."""
CONTRAST = (0.4, (120.0, 420.0), (420.0, 520.0))
"""Share with contrast; HU of arteries in training and unseen."""
TOOTHLESS, OPAQUE = 0.12, 0.15
UNSEEN_ROUNDNESS, UNSEEN_FILLET = (2.2, 2.5), (0.7, 1.3)


def build(seed: int) -> Anatomy:
    """Draw a head near the average.

    A seed always gives the same head.
    """
    rng = np.random.default_rng(seed)
    x, y, z = 1 + rng.uniform(-0.03, 0.03, 3)
    scalp, nose, chin, cheek = rng.uniform(-1, 1, 4)
    return Anatomy(
        scale=(float(x), float(y), float(z)),
        scalp_mm=float(6 + 0.6 * scalp),
        nose_mm=float(2 * nose),
        chin_mm=float(2 * chin),
        cheek_mm=float(2.5 * cheek),
    )


def draw(seed: int, *, unseen: bool = False) -> Anatomy:
    """Draw a head of any age and build.

    A seed always gives the same head.

    Args:
        seed: of the random generator.
        unseen: draw every measure from the flanks that training never sees, and use other shapes
            of solids.
    """
    rng = np.random.default_rng([seed, int(unseen)])
    drawn = {
        name: _flank(rng, name) if unseen else float(rng.uniform(*limits))
        for name, limits in RANGES.items()
    }
    size, across, along, upward = map(drawn.pop, ("size", "across", "along", "upward"))
    rare = [_rare(rng, *rule, unseen=unseen) for rule in (OPEN_MOUTH, CONTRAST)]
    toothless, opaque = (bool(rng.random() < share) for share in (TOOTHLESS, OPAQUE))
    return Anatomy(
        **drawn,
        scale=(size * across, size * along, size * upward),
        open_mm=rare[0] or 0.0,
        vessel_hu=rare[1] or 45.0,
        toothless=toothless,
        opaque_sinuses=opaque,
        roundness=float(rng.uniform(*UNSEEN_ROUNDNESS)) if unseen else 2.0,
        fillet=float(rng.uniform(*UNSEEN_FILLET)) if unseen else 1.0,
    )


def _flank(rng: np.random.Generator, name: str) -> float:
    low, high = RANGES[name]
    wide = FLANK * (high - low)
    below = rng.random() < 0.5 and name not in NEVER_BELOW
    return float(rng.uniform(low - wide, low) if below else rng.uniform(high, high + wide))


def _rare(
    rng: np.random.Generator, share: float, usual: Range, other: Range, *, unseen: bool
) -> float | None:
    value = float(rng.uniform(*(other if unseen else usual)))
    return value if rng.random() < share else None
