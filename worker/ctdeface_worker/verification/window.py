"""Find the facial window by the gate's own means.

It reaches from the lower forehead to the jaw, between the orbital rims.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray
from ctdeface_worker.verification.hounsfield import BONE_HU, SKIN_HU

HALF_WIDTH_MM = 45.0
"""Distance of the lateral orbital rims from the midline."""
BESIDE_NOSE_MM = 25.0
"""Examined on both sides of the nose in any case, however far the head is turned."""
FARTHEST_ASIDE_MM = 90.0
NO_STRAP_MM = 4.0
"""Half the thickness below which something counts as a tube or strap."""
TIP_MM = 6.0
FRONT_PART = 0.3
"""Share of the cavity's length, from the front, that is above the orbits."""
WHOLE_CAVITY_MM = 130.0
"""The field of view cuts a shorter cavity, whose front may not be the frontal lobe."""
CUT_CAVITY_MM = 100.0
"""The same limit for a cavity that is cut behind."""
AT_BORDER_MM = 4.0
BROW_ABOVE_FLOOR_MM = 4.0
POLE_MM, BROW_BELOW_POLE_MM = 14.0, 20.0
"""Length of the pole of the frontal lobes, and the lowest brow below it.

In a head that leans back the floor falls steeply behind the pole, and the brow is hardly lower than
the pole.
"""
FOREHEAD_MM = 14.0
"""Height of the examined part of the forehead.

In a head that leans, its middle is hardly higher above the floor of the frontal lobes.
"""
FACE_MM = (60.0, 150.0)
"""Range of distances of the chin below the brow."""
USUAL_FACE_MM = 118.0
JAW_HALF_WIDTH_MM = 20.0
JAW_BEFORE_CAVITY_MM = 30.0
OPEN_MOUTH_MM = 40.0
SMALLEST_JAW_CM2 = 0.2
JAW_BELOW_SKIN_MM = 35.0
"""Largest depth of the jaw below the skin; a spine in a neck bent back is deeper."""
UPPER_FACE_MM = 60.0
CHIN_BEHIND_FACE_MM = 25.0
"""Largest distance of the skin of the chin behind that of the upper face; the neck is farther."""
AHEAD_MM = 40.0
"""Examined space in front of the face, for remains of a mask or a tube."""
SMALLEST_PATIENT_ROW_CM2 = 1.0
"""Tissue in a coronal plane that is more than a strap or a tube."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The box in which facial skin is examined, LPS mm.

    Attributes:
        low: lowest corner (x, y, z): right, front, below the chin.
        high: highest corner: left, back, lower forehead.
    """

    low: FloatArray
    high: FloatArray


def find_window(canonical: Canonical, cavity: BoolArray) -> Window:
    """Return the facial window of a volume.

    Args:
        canonical: the input.
        cavity: intracranial cavity on the same grid (z, y, x), not empty.
    """
    mm, origin = canonical.spacing_mm, canonical.origin_lps
    columns, rows = np.flatnonzero(cavity.any(axis=(0, 1))), np.flatnonzero(cavity.any(axis=(0, 2)))
    middle = (columns[0] + columns[-1]) / 2
    least_mm = CUT_CAVITY_MM if _cut_behind(canonical, cavity, rows) else WHOLE_CAVITY_MM
    brow = _brow(cavity, rows, mm, least_mm)
    jaw = _jaw(canonical, middle, rows, brow)
    chin = jaw if jaw is not None else brow - USUAL_FACE_MM / mm
    bottom = max(chin, 0.0)
    nose = _nose(canonical, middle, rows, (bottom, brow))
    right = min(middle - HALF_WIDTH_MM / mm, nose - BESIDE_NOSE_MM / mm)
    left = max(middle + HALF_WIDTH_MM / mm, nose + BESIDE_NOSE_MM / mm)
    low = origin + mm * np.array([right, 0.0, bottom])
    top = min(brow + FOREHEAD_MM / mm, float(np.flatnonzero(cavity.any(axis=(1, 2)))[-1]))
    high = origin + mm * np.array([left, float(rows[-1]), max(top, brow)])
    low[1] = origin[1] + mm * _foremost_row(canonical) - AHEAD_MM
    return Window(low=low, high=high)


def _foremost_row(canonical: Canonical) -> float:
    """Return the patient's foremost row, without straps and tubes."""
    tissue = (canonical.hu > SKIN_HU) & canonical.valid
    cm2 = tissue.sum(axis=(0, 2)) * canonical.spacing_mm**2 / 100
    rows = np.flatnonzero(cm2 >= SMALLEST_PATIENT_ROW_CM2)
    return float(rows[0]) if rows.size else 0.0


def _nose(
    canonical: Canonical, middle: float, rows: NDArray[np.intp], levels: tuple[float, float]
) -> float:
    """Return the column of the foremost skin of the face.

    In a head that is turned, it is far to the side of the cavity.
    """
    mm = canonical.spacing_mm
    columns = slice(
        max(round(middle - FARTHEST_ASIDE_MM / mm), 0), round(middle + FARTHEST_ASIDE_MM / mm) + 1
    )
    tissue = (canonical.hu > SKIN_HU) & canonical.valid
    face = ndimage.binary_opening(
        tissue[round(levels[0]) : round(levels[1]) + 1, : rows[0], columns],
        iterations=round(NO_STRAP_MM / mm),
    )
    if not face.any():
        return middle
    skin = np.where(face.any(axis=1), face.argmax(axis=1), face.shape[1])
    return float(np.median(np.nonzero(skin <= skin.min() + TIP_MM / mm)[1]) + columns.start)


def _cut_behind(canonical: Canonical, cavity: BoolArray, rows: NDArray[np.intp]) -> bool:
    """Return whether the field of view cuts the cavity behind."""
    measured = np.flatnonzero(canonical.valid[cavity.any(axis=(1, 2))].any(axis=(0, 2)))
    return bool((measured[-1] - rows[-1]) * canonical.spacing_mm <= AT_BORDER_MM)


def _brow(cavity: BoolArray, rows: NDArray[np.intp], mm: float, least_mm: float) -> float:
    """Return the slice of the brow.

    It is a little above the floor of the frontal lobes.

    Where the floor is not in view, it is the highest slice of the cavity.
    """
    slices = np.flatnonzero(cavity.any(axis=(1, 2)))
    if (rows[-1] - rows[0]) * mm < least_mm:
        return float(slices[-1])
    front = cavity[:, rows[0] : rows[0] + round(FRONT_PART * (rows[-1] - rows[0])) + 1]
    floor = np.flatnonzero(front.any(axis=(1, 2)))[0]
    pole = np.flatnonzero(front[:, : round(POLE_MM / mm) + 1].any(axis=(1, 2)))[0]
    return float(
        min(max(floor + BROW_ABOVE_FLOOR_MM / mm, pole - BROW_BELOW_POLE_MM / mm), slices[-1])
    )


def _jaw(canonical: Canonical, middle: float, rows: NDArray[np.intp], brow: float) -> float | None:
    """Return the lowest slice of the jaw.

    Returns:
        None if no jaw is in view.
    """
    mm = canonical.spacing_mm
    half = round(JAW_HALF_WIDTH_MM / mm)
    behind = int(rows[0] + JAW_BEFORE_CAVITY_MM / mm)
    column = slice(max(round(middle) - half, 0), round(middle) + half + 1)
    top = max(int(brow), 1)
    front = canonical.hu[:top, :behind, column]
    skin = (front > SKIN_HU).any(axis=2).argmax(axis=1)
    superficial = np.arange(front.shape[1]) - skin[:, None] <= JAW_BELOW_SKIN_MM / mm
    upper_face = skin[max(top - round(UPPER_FACE_MM / mm), 0) :]
    superficial &= (skin - np.median(upper_face) <= CHIN_BEHIND_FACE_MM / mm)[:, None]
    cm2 = ((front > BONE_HU).sum(axis=2) * superficial).sum(axis=1) * mm**2 / 100
    lowest: float | None = None
    for z in np.flatnonzero(cm2 >= SMALLEST_JAW_CM2)[::-1]:
        below_mm = (brow - z) * mm
        if below_mm > FACE_MM[1] or (lowest is not None and (lowest - z) * mm > OPEN_MOUTH_MM):
            break
        lowest = float(z)
    return lowest if lowest is not None and (brow - lowest) * mm >= FACE_MM[0] else None
