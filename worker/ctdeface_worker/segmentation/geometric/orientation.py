"""Check the anatomy against the axes in the headers.

Airway and skull distinguish up from down and front from back.
"""

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
"""Range of nose and throat below the cavity; the trachea below follows a bent neck."""
HIGHEST_AIRWAY_MM = 0.0
"""Highest airway above the middle of the cavity's volume.

In true heads the airway is 20 mm or more below it, in heads turned over as far above it.
"""
REARMOST_AIRWAY_MM = 15.0
"""Largest distance of the airway behind the axis.

True heads that look straight ahead have it 40 mm before the axis, heads bent as far as possible
19 mm; in heads turned back to front it is as far behind.
"""
AROUND_AXIS_MM = 80.0
"""Range before and behind the axis; air between head and couch or holder is outside."""
FARTHEST_AIRWAY_MM = 20.0
"""Largest lateral distance of the airway from the middle of the skull.

It may be larger if the airway is farther to the front, as in a head that leans to its shoulder.
"""
BROADEST_SKULL = 1.1
"""Largest ratio of width to length of a whole skull; true heads have less than 1."""
NARROW_SKULL = 0.9
"""Ratio below which a whole skull is clearly longer than wide.

Such a skull is not turned on its side, however the neck is bent.
"""


def check_orientation(canonical: Canonical, tissue: Tissue, skull: Skull) -> str:
    """Return "verified", or "not verifiable" if no airway is in view.

    Raises:
        UntrustedGeometry: the airway is in an impossible place.
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
        _contradict("the airway is above the brain")
    aside, ahead = abs(x - skull.axis.x) * mm, (skull.axis.y - y) * mm
    if ahead < -REARMOST_AIRWAY_MM:
        _contradict("the airway is behind the brain")
    if aside > max(FARTHEST_AIRWAY_MM, ahead) and not (
        length_mm >= WHOLE_SKULL_MM and width_mm < NARROW_SKULL * length_mm
    ):
        _contradict("the airway is to the side of the skull")
    return "verified"


def _near(air: BoolArray, skull: Skull, spacing_mm: float) -> BoolArray:
    """Return the air of nose and throat."""
    near = air[max(skull.lowest - round(NEAR_AIRWAY_MM / spacing_mm), 0) :].copy()
    reach, y = AROUND_AXIS_MM / spacing_mm, np.arange(near.shape[1])
    near[:, np.abs(y - skull.axis.y) > reach] = False
    return near


def _inner_air(canonical: Canonical, tissue: Tissue) -> BoolArray:
    """Return the air inside the head.

    The body encloses it in axial sections after the nostrils are closed. Lungs are below and do not
    count.
    """
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


def _contradict(found: str) -> None:
    raise UntrustedGeometry(
        f"{found} by the axes in the headers, so the orientation in the headers cannot be trusted. "
        "Compare ImageOrientationPatient and ImagePositionPatient with the images, and send the "
        "series with correct headers"
    )
