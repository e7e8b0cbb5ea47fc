"""Separate body, bone and intracranial cavity on the canonical grid.

Arrays are (z, y, x): superior, posterior, left.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.imaging.hounsfield import BONE_HU, BRAIN_HU, SKIN_HU, WEAK_BONE_HU

OPENING_MM = 6.0
"""Half the thickness of the thickest couch, strap, holder or tube."""
RING_CLOSING_MM = 6.0
WEAK_RING_CLOSING_MM = 12.0
SMALLEST_SECTION_CM2 = 8.0
"""Smaller sections within a ring of bone are vertebral canals, sinuses or orbits."""
SMALLEST_PIECE_ML = 10.0
WIDEST_GAP_MM = 70.0
"""Largest gap in the cavity, where rings of bone are open at the skull base."""
MARGIN_MM = 16.0
MIDDLE_MM = 50.0
"""Half the width of the middle, into which every section of head and neck reaches.

Arms beside the head do not.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """Tissue through which the rays are cast.

    Attributes:
        body: the patient without couch, holder and tubes.
        bone: of the body.
        cavity: intracranial; slices may be missing where the skull base is open.
    """

    body: BoolArray
    bone: BoolArray
    cavity: BoolArray


def around_body(canonical: Canonical) -> tuple[slice, slice, slice]:
    """Return the grid around the largest object, in all slices."""
    rough = ((canonical.hu > SKIN_HU) & canonical.valid)[:, ::2, ::2]
    body = morphology.largest_component(morphology.opened(rough, 1))
    found = ndimage.find_objects(body.astype(np.uint8))
    if not found:
        return (slice(None), slice(None), slice(None))
    margin = round(MARGIN_MM / canonical.spacing_mm)
    _, y, x = found[0]
    return (
        slice(None),
        slice(max(2 * y.start - margin, 0), 2 * y.stop + margin),
        slice(max(2 * x.start - margin, 0), 2 * x.stop + margin),
    )


def find_tissue(canonical: Canonical) -> Tissue:
    """Separate body, bone and cavity."""
    body = _body(canonical)
    bone: BoolArray = body & (canonical.hu > BONE_HU)
    return Tissue(body=body, bone=bone, cavity=_cavity(canonical, bone))


def without_arms(tissue: Tissue, middle: float, spacing_mm: float) -> Tissue:
    """Drop pieces of axial sections beside the head.

    `middle` is the middle column of the head.
    """
    half = MIDDLE_MM / spacing_mm
    labels = morphology.sections(tissue.body)
    central = np.zeros(int(labels.max(initial=0)) + 1, dtype=bool)
    central[labels[:, :, max(round(middle - half), 0) : round(middle + half) + 1].ravel()] = True
    central[0] = False
    body: BoolArray = central[labels]
    return Tissue(body=body, bone=tissue.bone & body, cavity=tissue.cavity)


def _body(canonical: Canonical) -> BoolArray:
    """Keep the largest object after an opening.

    The skin that the opening removed is added again.
    """
    dense = (canonical.hu > SKIN_HU) & canonical.valid
    radius = round(OPENING_MM / canonical.spacing_mm)
    return dense & morphology.grown(
        morphology.largest_component(morphology.opened(dense, radius)), radius
    )


def _cavity(canonical: Canonical, bone: BoolArray) -> BoolArray:
    """Join the axial sections within rings of bone.

    Where coarse voxels leave a ring open, a weaker ring is used, but only above the lowest closed
    ring.
    """
    mm = canonical.spacing_mm
    soft = (canonical.hu > BRAIN_HU[0]) & (canonical.hu < BRAIN_HU[1]) & canonical.valid
    with_bone = bone.any(axis=(1, 2))
    beyond = ~canonical.valid | _cut(canonical)
    sections = np.zeros_like(bone)
    sections[with_bone] = _large(
        _ringed((bone | beyond)[with_bone], RING_CLOSING_MM / mm) & soft[with_bone], mm
    )
    closed = np.flatnonzero(_joined(sections, mm).any(axis=(1, 2)))
    if not closed.size:
        return sections
    missing = ~sections.any(axis=(1, 2)) & (np.arange(bone.shape[0]) >= closed[0])
    weak = (canonical.hu[missing] > WEAK_BONE_HU) | beyond[missing]
    sections[missing] = _large(_ringed(weak, WEAK_RING_CLOSING_MM / mm) & soft[missing], mm)
    return _joined(sections, mm)


def _cut(canonical: Canonical) -> BoolArray:
    """Return the grid's sides at which the patient is cut."""
    cut = np.zeros_like(canonical.valid)
    for side in ((slice(None), 0), (slice(None), -1), (..., 0), (..., -1)):
        cut[side] = canonical.hu[side] > SKIN_HU
    return cut


def _ringed(bone: BoolArray, closing_voxels: float) -> BoolArray:
    """Return what closed bone encloses in each axial section.

    The outside of the field of view counts as wall.
    """
    return morphology.holes(morphology.closed(bone, round(closing_voxels)))


def _large(sections: BoolArray, spacing_mm: float) -> BoolArray:
    labels = morphology.sections(morphology.opened(sections, 1))
    areas = np.bincount(labels.ravel(), minlength=1) * spacing_mm**2 / 100
    areas[0] = 0
    large: BoolArray = (areas >= SMALLEST_SECTION_CM2)[labels]
    return large


def _joined(sections: BoolArray, spacing_mm: float) -> BoolArray:
    """Keep the largest piece and the pieces above or below it."""
    return morphology.column(
        sections,
        smallest=SMALLEST_PIECE_ML * 1000 / spacing_mm**3,
        widest_gap=WIDEST_GAP_MM / spacing_mm,
    )
