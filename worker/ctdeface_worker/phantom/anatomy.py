"""The solids that make up a head.

Coordinates are mm in the head's own frame: the origin is between the ear canals, x points to the
left, y to the back and z up; the Frankfurt plane is z = 0.

Sizes are those of an average adult (W. M. Krogman, M. Y. Iscan, The Human Skeleton in Forensic
Medicine; tissue depths after J. S. Rhine, C. E. Moore 1982), rounded. Nothing is copied from a
real person.
"""

import numpy as np

from ctdeface_worker.phantom.build import Anatomy
from ctdeface_worker.phantom.shapes import Arch, Ellipsoid, Limb, Point, Shape

HINGE: Point = (0.0, -12.0, -6.0)
"""Axis of both jaw joints, about which the mouth opens."""
HINGE_TO_TEETH_MM = 82.0


def lowered(at: Point, head: Anatomy) -> Point:
    """Rotate a point of the jaw with the open mouth."""
    angle = head.open_mm / HINGE_TO_TEETH_MM
    y, z = at[1] - HINGE[1], at[2] - HINGE[2]
    c, s = np.cos(angle), np.sin(angle)
    return (at[0], float(HINGE[1] + c * y - s * z), float(HINGE[2] + s * y + c * z))


CEREBRUM: tuple[Shape, ...] = (
    Ellipsoid((0, 6, 55), (65, 83, 63)),
    Ellipsoid((0, 22, 14), (58, 52, 32)),
)
"""Cavity of the skull, without the floor of the anterior fossa."""

FORAMEN = Limb((0, 36, -10), (0, 38, -40), (8, 7))


def ventricles(head: Anatomy) -> tuple[Shape, ...]:
    """Return the lateral ventricles, which atrophy widens."""
    more = head.atrophy_mm
    return (
        Limb((9 + more, -22, 58), (14 + more, 30, 60), (6 + more, 7 + more), mirrored=True),
        Limb((14 + more, 30, 60), (22, 8, 34), (6 + more, 3), mirrored=True),
    )


ORBIT = Limb((33, -78, 16), (19, -40, 20), (19, 5), mirrored=True)


def globe(head: Anatomy) -> Ellipsoid:
    """Return the eyeball."""
    return Ellipsoid((32, -81 - head.eye_mm, 16), (12, 12, 12), mirrored=True)


def lens(head: Anatomy) -> Ellipsoid:
    """Return the lens of the eye."""
    return Ellipsoid((32, -89 - head.eye_mm, 16), (4.5, 2, 4.5), mirrored=True)


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
    Limb((9, -84, 28), (14, -82, -20), (5, 5), mirrored=True),
    Limb((0, -86, 34), (0, -88, 28), (7, 6)),
    Limb((17, -46, 0), (14, -40, -38), (4, 3), mirrored=True),
)


def brow(head: Anatomy) -> tuple[Shape, ...]:
    """Return the brow ridges and the bones of the nasal bridge."""
    brow, bridge = head.brow_mm, head.nose_bridge_mm
    return (
        Limb((12, -86 - brow, 36), (48, -70, 38), (6, 6), mirrored=True),
        Limb((0, -89, 28), (0, -104 - bridge, 10), (5, 3)),
    )


SKULL_BASE: tuple[Shape, ...] = (
    Ellipsoid((56, 18, -18), (12, 14, 18), mirrored=True),
    Limb((52, 8, -2), (14, -8, -8), (10, 8), mirrored=True),
    Limb((0, -36, 2), (0, 26, -24), (16, 9)),
)


def jaw(head: Anatomy) -> tuple[Shape, ...]:
    """Return the mandible with condyle and coronoid process."""
    wide = head.jaw_mm
    tilt = float(np.tan(head.open_mm / HINGE_TO_TEETH_MM))
    return (
        Arch(lowered((0, -24, -64), head), (43 + wide, 49), 4.5, 10, 0.28 + tilt),
        Ellipsoid(lowered((0, -72 - head.chin_mm, -84), head), (16, 8, 9)),
        Limb(
            lowered((45 + wide, -16, -56), head),
            (50 + wide / 2, -12, -6),
            (6.5, 5.5),
            mirrored=True,
        ),
        Limb(
            lowered((45 + wide, -24, -54), head),
            lowered((47 + wide / 2, -34, -14), head),
            (5.5, 3.5),
            mirrored=True,
        ),
    )


def teeth(head: Anatomy) -> tuple[Shape, ...]:
    """Return the upper and lower rows of teeth, none if toothless."""
    if head.toothless:
        return ()
    tilt = float(np.tan(head.open_mm / HINGE_TO_TEETH_MM))
    return (
        Arch((0, -40, -43), (25, 42), 3.8, 6.5),
        Arch(lowered((0, -40, -56), head), (24, 39), 3.6, 6, tilt),
    )


def sinuses(head: Anatomy) -> tuple[Shape, ...]:
    """Return the paranasal sinuses and the mastoid cells."""
    size = head.frontal_sinus
    frontal = Ellipsoid((9, -83, 45), (8 * size, 2.2, 7 * size), mirrored=True)
    return (
        Ellipsoid((25, -58, -14), (10, 13, 14), mirrored=True),
        Ellipsoid((7, -50, 14), (6, 18, 9), mirrored=True),
        Ellipsoid((9, -30, 3), (7, 7, 7), mirrored=True),
        Ellipsoid((58, 18, -12), (5, 7, 9), mirrored=True),
        *((frontal,) if size > 0.1 else ()),
    )


def airways(head: Anatomy) -> tuple[Shape, ...]:
    """Return nasal cavity, pharynx, larynx, trachea and open mouth."""
    tip, back = -112 - head.nose_mm, head.neck_back_mm
    return (
        Ellipsoid((6.5, -62, -10), (4.5, 34, 18), mirrored=True),
        Limb((6.5, tip + 6, -26 - head.nose_tip_mm), (6, -88, -12), (3.2, 4), mirrored=True),
        Limb((5, -36, -10), (0, -20, -14), (8, 8), mirrored=True),
        Limb((0, -19, -14), (0, -14, -62), (8, 7)),
        Limb((0, -15, -62), (0, -26 + back / 4, -84), (7, 6)),
        Limb((0, -26 + back / 4, -84), (0, -17 + back, -170), (8, 9)),
        Limb((68, 4, 0), (84, 6, -1), (3, 3.5), mirrored=True),
        *open_mouth(head),
    )


def open_mouth(head: Anatomy) -> tuple[Shape, ...]:
    """Return the air of an open mouth, between teeth and tongue."""
    half = head.open_mm / 2
    if half < 1:
        return ()
    return (
        Ellipsoid((0, -66, -48.5 - half), (20, 42, half)),
        Limb((0, -30, -46), (0, -18, -50), (5, 5)),
    )


CONCHAE: tuple[Shape, ...] = (
    Limb((8, -84, -20), (8, -42, -20), (2.2, 2), mirrored=True),
    Limb((8, -80, -8), (8, -40, -8), (2, 2), mirrored=True),
)


def relief(head: Anatomy) -> tuple[Shape, ...]:
    """Return broad soft shapes: cheeks, jaws, temples, chin, inner face."""
    chin, cheek, jaw, more = head.chin_mm, head.cheek_mm, head.jaw_mm, head.double_chin_mm

    def soft(center: Point, half: Point, *, mirrored: bool = False) -> Shape:
        return Ellipsoid(center, half, mirrored=mirrored, exponent=head.roundness)

    double_chin = (soft(lowered((0, -50, -88 - more / 2), head), (34, 30, 12 + more)),)
    return (
        soft((0, -60, -30), (46, 32 + cheek / 2, 44)),
        soft((0, -56, 16), (20, 32, 24)),
        soft((34, -62, -18), (26, 26 + cheek, 28), mirrored=True),
        soft(_half_lowered((36, -44, -50), head), (26 + jaw / 2, 34 + cheek, 28), mirrored=True),
        soft(
            _half_lowered((46 + jaw / 2, -26, -34), head),
            (22 + cheek / 2 + jaw / 2, 36, 40),
            mirrored=True,
        ),
        soft((50, -34, 18), (22, 36, 44), mirrored=True),
        soft((34, -38, -2), (30, 34, 24), mirrored=True),
        soft(lowered((0, -38, -72), head), (38 + jaw / 2, 42, 22)),
        soft((54, 22, -18), (22, 30, 34), mirrored=True),
        soft(lowered((0, -77 - chin, -83), head), (21, 14, 15)),
        soft((0, -82, -38), (27, 14, 18)),
        *(double_chin if more > 1 else ()),
    )


def _half_lowered(at: Point, head: Anatomy) -> Point:
    x, y, z = lowered(at, head)
    return (x, (y + at[1]) / 2, (z + at[2]) / 2)


def features(head: Anatomy) -> tuple[Shape, ...]:
    """Return small soft shapes: nose, lips, lids, brows.

    Fat below lifts the lips outward.
    """
    tip, hang, wide = -112 - head.nose_mm, head.nose_tip_mm, head.nose_width_mm
    lips, out = head.lips_mm, 0.6 * (head.fat_mm - 3)
    eye, brow, bridge = head.eye_mm, head.brow_mm, head.nose_bridge_mm
    lower = [lowered(at, head) for at in ((0, -92.5 - out, -52), (16, -85 - out, -48.5))]
    if head.open_mm:  # the corner of the mouth stays where it was
        lower[1] = (16, lower[1][1], (lower[1][2] - 48.5) / 2)
    return (
        Limb((0, -92 - bridge, 30), (0, tip, -8 - hang), (6 + wide / 3, 8.5 + wide / 3)),
        Ellipsoid((10 + wide, -99, -14 - hang / 2), (8 + wide / 2, 9, 7.5), mirrored=True),
        Limb((0, tip + 2, -11 - hang), (0, -95, -22), (6, 5.5)),
        Limb(
            (0, -94.5 - out, -41),
            (18, -86 - out, -45.5),
            (5 + lips / 2, 3.5 + lips / 3),
            mirrored=True,
        ),
        Limb(lower[0], lower[1], (5.5 + lips / 2, 3.5 + lips / 3), mirrored=True),
        Ellipsoid((32, -80.5 - eye, 16), (18, 13.5, 14), mirrored=True),
        Limb((14, -88 - brow, 36), (46, -76, 35), (6, 6), mirrored=True),
    )


def lips_apart(head: Anatomy) -> Shape:
    """Return the gap to carve out between the lips."""
    half, out = head.open_mm / 2, 0.6 * (head.fat_mm - 3)
    if half < 1:
        return Limb((0, -104 - out, -46.8), (21, -93.5 - out, -46.8), (2.2, 1.2), mirrored=True)
    return Ellipsoid((0, -96 - out, -47 - half), (18, 22, half + 1))


def neck(head: Anatomy) -> tuple[Shape, ...]:
    """Return neck and shoulders."""
    more, back, up = head.neck_mm, head.neck_back_mm, head.shoulder_mm
    return (
        Limb((0, 28, -30), (0, 34 + back, -230), (58 + more / 2, 62 + more)),
        Limb((0, 12, -60), (0, 14 + back, -230), (50 + more, 56 + more)),
        Limb((60, 40 + back / 2, -160 + up), (150, 45 + back, -210 + up), (40, 48), mirrored=True),
    )


def ears(head: Anatomy) -> tuple[Shape, ...]:
    """Return the outer ears."""
    out, by = head.ear_mm, head.ear_scale
    return (
        Ellipsoid((80 + out / 2, 13, 12), (7 + max(out, 0) / 2, 17 * by, 24 * by), mirrored=True),
        Ellipsoid((77 + out / 3, 6, -16), (6, 9 * by, 14 * by), mirrored=True),
    )


def concha(head: Anatomy) -> Shape:
    """Return the hollow of the outer ear."""
    return Ellipsoid(
        (88 + head.ear_mm, 9, 8), (7, 11 * head.ear_scale, 17 * head.ear_scale), mirrored=True
    )


def spine(head: Anatomy) -> tuple[Shape, ...]:
    """Return bodies, arches and spinous processes of the vertebrae."""
    back = head.neck_back_mm
    return (
        Limb((0, 24, -34), (0, 22 + back, -240), (10, 11)),
        Limb((0, 42, -36), (0, 41 + back, -240), (13, 13)),
        Limb((12, 34, -36), (12, 34 + back, -240), (8, 8), mirrored=True),
        Limb((0, 50, -50), (0, 64 + back, -240), (4, 5)),
    )


def canal(head: Anatomy, radius: float) -> Limb:
    """Return the spinal canal, or the cord with a smaller radius."""
    return Limb((0, 37, -10), (0, 39 + head.neck_back_mm, -250), (radius, radius))


def vessels(head: Anatomy) -> tuple[Shape, ...]:
    """Return carotid, vertebral and cerebral arteries, jugular veins."""
    back = head.neck_back_mm
    return (
        Limb((30, 4, -60), (26, 4 + back, -230), (3.2, 3.6), mirrored=True),
        Limb((24, 0, -20), (30, 4, -60), (2.6, 3.2), mirrored=True),
        Limb((12, -14, 14), (24, 0, -20), (2.4, 2.6), mirrored=True),
        Limb((12, -14, 14), (44, -6, 34), (1.8, 1.4), mirrored=True),
        Limb((2, -20, 18), (2, -40, 60), (1.5, 1.2), mirrored=True),
        Limb((16, 30, -40), (16, 30 + back, -230), (2, 2), mirrored=True),
        Limb((38, 14, -30), (38, 12 + back, -230), (4.5, 6), mirrored=True),
        Limb((28, -58, -62), (42, -30, -80), (1.4, 2.2), mirrored=True),
    )


COUCH = Arch((0, 40, 0), (118, -72), 2.0, 400)
"""Thin shell behind the head, concave side up."""


def hull(head: Anatomy) -> tuple[Shape, ...]:
    """Return soft shapes that, with the bones, bound the face behind."""
    return (
        Ellipsoid(_half_lowered((0, -34, -52), head), (38, 36, 36)),
        Ellipsoid((0, -52, -22), (40, 26, 36)),
        Ellipsoid((32, -62 - head.eye_mm / 2, 16), (20, 16, 18), mirrored=True),
        Ellipsoid(_half_lowered((50, -20, -30), head), (8, 22, 36), mirrored=True),
        Ellipsoid(lowered((0, -20, -90), head), (46, 40, 30)),
    )
