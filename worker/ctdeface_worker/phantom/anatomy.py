"""The solids of a head in mm, in its own frame: origin between the ear canals, x to the left, y to the back, z up (Frankfurt plane z = 0).

Sizes are those of an average adult (W. M. Krogman, M. Y. Iscan, The Human Skeleton in Forensic Medicine; tissue depths after
J. S. Rhine, C. E. Moore 1982), rounded; nothing is copied from a person.
"""

from dataclasses import dataclass

import numpy as np

from ctdeface_worker.phantom.shapes import Arch, Ellipsoid, Limb, Shape

VAULT_MM = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What differs between heads.

    Attributes:
        scale: of the whole head along (x, y, z).
        scalp_mm: from bone to skin over the vault.
        nose_mm: added to the length of the nose.
        chin_mm: added to the chin's prominence.
        cheek_mm: added to the fullness of the cheeks.
    """

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scalp_mm: float = 6.0
    nose_mm: float = 0.0
    chin_mm: float = 0.0
    cheek_mm: float = 0.0


def build(seed: int) -> Build:
    """Draw a head; the same seed always gives the same one."""
    chance = np.random.default_rng(seed)
    x, y, z = 1 + chance.uniform(-0.03, 0.03, 3)
    scalp, nose, chin, cheek = chance.uniform(-1, 1, 4)
    return Build(
        scale=(float(x), float(y), float(z)),
        scalp_mm=float(6 + 0.6 * scalp),
        nose_mm=float(2 * nose),
        chin_mm=float(2 * chin),
        cheek_mm=float(2.5 * cheek),
    )


CEREBRUM: tuple[Shape, ...] = (
    Ellipsoid((0, 6, 55), (65, 83, 63)),
    Ellipsoid((0, 22, 14), (58, 52, 32)),
)
"""The cavity of the skull, before the floor of the anterior fossa is put in."""

FORAMEN = Limb((0, 36, -10), (0, 38, -40), (8, 7))
VENTRICLES: tuple[Shape, ...] = (
    Limb((9, -22, 58), (14, 30, 60), (6, 7), mirrored=True),
    Limb((14, 30, 60), (22, 8, 34), (6, 3), mirrored=True),
)
ORBIT = Limb((33, -78, 16), (19, -40, 20), (19, 5), mirrored=True)
GLOBE = Ellipsoid((32, -81, 16), (12, 12, 12), mirrored=True)
LENS = Ellipsoid((32, -89, 16), (4.5, 2, 4.5), mirrored=True)
EYE_MUSCLES: tuple[Shape, ...] = (
    Limb((31, -71, 16), (20, -42, 20), (2, 2), mirrored=True),
    Limb((44, -78, 16), (22, -42, 20), (1.5, 2), mirrored=True),
    Limb((21, -78, 16), (18, -42, 20), (1.5, 2), mirrored=True),
    Limb((32, -78, 29), (20, -42, 22), (1.5, 2), mirrored=True),
    Limb((32, -78, 4), (20, -42, 17), (1.5, 2), mirrored=True),
)

MIDFACE: tuple[Shape, ...] = (
    Ellipsoid((0, -58, -18), (34, 24, 22)),
    Ellipsoid((0, -60, -34), (28, 24, 10)),
    Limb((30, -76, -6), (56, -56, -4), (9, 8), mirrored=True),
    Limb((56, -56, -4), (66, -12, -1), (6, 3.5), mirrored=True),
    Limb((53, -62, 0), (52, -62, 30), (6, 6), mirrored=True),
    Limb((12, -86, 36), (48, -70, 38), (6, 6), mirrored=True),
    Limb((9, -84, 28), (14, -82, -20), (5, 5), mirrored=True),
    Limb((0, -86, 34), (0, -88, 28), (7, 6)),
    Limb((17, -46, 0), (14, -40, -38), (4, 3), mirrored=True),
)
NASAL_BONE = Limb((0, -89, 28), (0, -104, 10), (5, 3))
SKULL_BASE: tuple[Shape, ...] = (
    Ellipsoid((56, 18, -18), (12, 14, 18), mirrored=True),
    Limb((52, 8, -2), (14, -8, -8), (10, 8), mirrored=True),
    Limb((0, -36, 2), (0, 26, -24), (16, 9)),
)


def jaw(chin_mm: float) -> tuple[Shape, ...]:
    """The mandible: body, chin, ramus with condyle and coronoid process."""
    return (
        Arch((0, -24, -64), (43, 49), 4.5, 10, 0.28),
        Ellipsoid((0, -72 - chin_mm, -84), (16, 8, 9)),
        Limb((45, -16, -56), (50, -12, -6), (6.5, 5.5), mirrored=True),
        Limb((45, -24, -54), (47, -34, -14), (5.5, 3.5), mirrored=True),
    )


TEETH: tuple[Shape, ...] = (
    Arch((0, -40, -43), (25, 42), 3.8, 6.5),
    Arch((0, -40, -56), (24, 39), 3.6, 6),
)
SINUSES: tuple[Shape, ...] = (
    Ellipsoid((25, -58, -14), (10, 13, 14), mirrored=True),
    Ellipsoid((7, -50, 14), (6, 18, 9), mirrored=True),
    Ellipsoid((9, -30, 3), (7, 7, 7), mirrored=True),
    Ellipsoid((9, -83, 45), (8, 2.2, 7), mirrored=True),
    Ellipsoid((58, 18, -12), (5, 7, 9), mirrored=True),
)


def airways(nose_mm: float) -> tuple[Shape, ...]:
    """Nasal cavity, nostrils, pharynx, larynx and trachea."""
    tip = -112 - nose_mm
    return (
        Ellipsoid((6.5, -62, -10), (4.5, 34, 18), mirrored=True),
        Limb((6.5, tip + 6, -26), (6, -88, -12), (3.2, 4), mirrored=True),
        Limb((5, -36, -10), (0, -20, -14), (8, 8), mirrored=True),
        Limb((0, -19, -14), (0, -14, -62), (8, 7)),
        Limb((0, -15, -62), (0, -26, -84), (7, 6)),
        Limb((0, -26, -84), (0, -17, -170), (8, 9)),
        Limb((68, 4, 0), (84, 6, -1), (3, 3.5), mirrored=True),
    )


CONCHAE: tuple[Shape, ...] = (
    Limb((8, -84, -20), (8, -42, -20), (2.2, 2), mirrored=True),
    Limb((8, -80, -8), (8, -40, -8), (2, 2), mirrored=True),
)


def relief(build: Build) -> tuple[Shape, ...]:
    """Broad soft shapes under the skin: cheeks, jaws, temples, chin, and what fills the face inside."""
    chin, cheek = build.chin_mm, build.cheek_mm
    return (
        Ellipsoid((0, -60, -30), (46, 32 + cheek / 2, 44)),
        Ellipsoid((0, -56, 16), (20, 32, 24)),
        Ellipsoid((34, -62, -18), (26, 26 + cheek, 28), mirrored=True),
        Ellipsoid((36, -44, -50), (26, 34 + cheek, 28), mirrored=True),
        Ellipsoid((46, -26, -34), (22 + cheek / 2, 36, 40), mirrored=True),
        Ellipsoid((50, -34, 18), (22, 36, 44), mirrored=True),
        Ellipsoid((34, -38, -2), (30, 34, 24), mirrored=True),
        Ellipsoid((0, -38, -72), (38, 42, 22)),
        Ellipsoid((54, 22, -18), (22, 30, 34), mirrored=True),
        Ellipsoid((0, -77 - chin, -83), (21, 14, 15)),
        Ellipsoid((0, -82, -38), (27, 14, 18)),
    )


def features(build: Build) -> tuple[Shape, ...]:
    """Small soft shapes: nose, lips, lids."""
    tip = -112 - build.nose_mm
    return (
        Limb((0, -92, 30), (0, tip, -8), (6, 8.5)),
        Ellipsoid((10, -99, -14), (8, 9, 7.5), mirrored=True),
        Limb((0, tip + 2, -11), (0, -95, -22), (6, 5.5)),
        Limb((0, -94.5, -41), (18, -86, -45.5), (5, 3.5), mirrored=True),
        Limb((0, -92.5, -52), (16, -85, -48.5), (5.5, 3.5), mirrored=True),
        Ellipsoid((32, -80.5, 16), (18, 13.5, 14), mirrored=True),
        Limb((14, -88, 36), (46, -76, 35), (6, 6), mirrored=True),
    )


MOUTH = Limb((0, -104, -46.8), (21, -93.5, -46.8), (2.2, 1.2), mirrored=True)
"""The line between the lips."""

NECK: tuple[Shape, ...] = (
    Limb((0, 28, -30), (0, 34, -190), (58, 62)),
    Limb((0, 12, -60), (0, 14, -190), (50, 56)),
    Limb((60, 40, -160), (150, 45, -210), (40, 48), mirrored=True),
)
EARS: tuple[Shape, ...] = (
    Ellipsoid((80, 13, 12), (7, 17, 24), mirrored=True),
    Ellipsoid((77, 6, -16), (6, 9, 14), mirrored=True),
)
CONCHA = Ellipsoid((88, 9, 8), (7, 11, 17), mirrored=True)

SPINE: tuple[Shape, ...] = (
    Limb((0, 24, -34), (0, 22, -200), (10, 11)),
    Limb((0, 42, -36), (0, 41, -200), (13, 13)),
    Limb((12, 34, -36), (12, 34, -200), (8, 8), mirrored=True),
    Limb((0, 50, -50), (0, 64, -200), (4, 5)),
)
CANAL = Limb((0, 38, -30), (0, 39, -210), (8, 8))
CORD = Limb((0, 36, -10), (0, 39, -210), (5, 5))

COUCH = Arch((0, 40, 0), (118, -72), 2.0, 400)
"""A thin shell behind the head, hollow side up."""

HULL: tuple[Shape, ...] = (
    Ellipsoid((0, -34, -52), (38, 36, 36)),
    Ellipsoid((0, -52, -22), (40, 26, 36)),
    Ellipsoid((32, -62, 16), (20, 16, 18), mirrored=True),
    Ellipsoid((50, -20, -30), (8, 22, 36), mirrored=True),
    Ellipsoid((0, -20, -90), (46, 40, 30)),
)
"""Together with the bones: what lies behind the face."""
