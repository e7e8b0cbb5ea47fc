"""Whether the anatomy agrees with the axes of the headers: airway and skull tell up from down and front from back."""

import numpy as np

from ctdeface_shared.errors import UntrustedGeometry
from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.imaging.hounsfield import AIRWAY_HU
from ctdeface_worker.segmentation.geometric.landmarks import WHOLE_SKULL_MM, Skull
from ctdeface_worker.segmentation.geometric.tissue import Tissue

SMALLEST_AIRWAY_ML = 3.0
AIRWAY_BELOW_CAVITY_MM = 130.0
NEAR_AIRWAY_MM = 40.0
"""Below the cavity: nose and throat. The windpipe, farther down, goes wherever the neck is bent to."""
HIGHEST_AIRWAY_MM = 0.0
"""Above the middle of the cavity's volume; in true heads the airway lies 20 mm or more below it, in heads turned over as far above it."""
REARMOST_AIRWAY_MM = 15.0
"""Behind the axis; true heads looking straight ahead have it 40 mm before, bent as far as they go 19 mm, so back to front as far behind."""
AROUND_AXIS_MM = 80.0
"""Before and behind the axis: air that a couch or a holder closes in behind the head is no airway."""
FARTHEST_AIRWAY_MM = 20.0
"""From the middle of the skull to the side, unless it lies farther to the front, as it does where a head leans to its shoulder."""
BROADEST_SKULL = 1.1
"""Width of a whole skull over its length; true heads stay below 1."""
NARROW_SKULL = 0.9
"""A whole skull that is clearly longer than wide does not lie on its side, however its neck is bent."""


def check_orientation(canonical: Canonical, tissue: Tissue, skull: Skull) -> str:
    """Return "verified", or "not verifiable" when no airway is in view.

    Raises:
        UntrustedGeometry: the airway lies where it cannot be.
    """
    mm = canonical.spacing_mm
    length_mm = (skull.rear - skull.front) * mm
    columns = np.flatnonzero(tissue.cavity.any(axis=(0, 1)))
    width_mm = (columns[-1] - columns[0]) * mm
    if length_mm >= WHOLE_SKULL_MM and width_mm > BROADEST_SKULL * length_mm:
        _contradict("the skull is wider than it is long")
    air = _inner_air(canonical, tissue)
    if air.sum() * mm**3 / 1000 < SMALLEST_AIRWAY_ML:
        return "not verifiable"
    near = _near(air, skull, mm)
    z = float(np.mean(np.nonzero(air)[0]))
    y, x = (
        float(np.mean(index))
        for index in np.nonzero(near if near.sum() * mm**3 / 1000 >= SMALLEST_AIRWAY_ML else air)[
            1:
        ]
    )
    if (z - float(np.nonzero(tissue.cavity)[0].mean())) * mm > HIGHEST_AIRWAY_MM:
        _contradict("the airway lies above the brain")
    aside, ahead = abs(x - skull.axis.x) * mm, (skull.axis.y - y) * mm
    if ahead < -REARMOST_AIRWAY_MM:
        _contradict("the airway lies behind the brain")
    if aside > max(FARTHEST_AIRWAY_MM, ahead) and not (
        length_mm >= WHOLE_SKULL_MM and width_mm < NARROW_SKULL * length_mm
    ):
        _contradict("the airway lies to the side of the skull")
    return "verified"


def _near(air: BoolArray, skull: Skull, spacing_mm: float) -> BoolArray:
    """Air of the upper airway alone: just below the cavity, around the axis."""
    near = air[max(skull.lowest - round(NEAR_AIRWAY_MM / spacing_mm), 0) :].copy()
    reach, y = AROUND_AXIS_MM / spacing_mm, np.arange(near.shape[1])
    near[:, np.abs(y - skull.axis.y) > reach] = False
    return near


def _inner_air(canonical: Canonical, tissue: Tissue) -> BoolArray:
    """Air inside the head: enclosed by body in axial sections, after closing the nostrils; lungs lie below and do not count."""
    air = np.zeros_like(tissue.body)
    lowest = max(
        int(
            np.flatnonzero(tissue.cavity.any(axis=(1, 2)))[0]
            - AIRWAY_BELOW_CAVITY_MM / canonical.spacing_mm
        ),
        0,
    )
    closed = morphology.closed(tissue.body[lowest:], round(8 / canonical.spacing_mm))
    dark = (canonical.hu[lowest:] < AIRWAY_HU) & canonical.valid[lowest:]
    air[lowest:] = morphology.opened((closed | morphology.holes(closed)) & dark, 1)
    return air


def _contradict(what: str) -> None:
    raise UntrustedGeometry(
        f"{what} by the headers' axes: the orientation in the headers cannot be trusted"
    )
