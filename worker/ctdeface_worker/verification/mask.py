"""Check size, position and connectedness of a mask."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, Geometry
from ctdeface_worker.verification.check import Check, at_most, percent
from ctdeface_worker.verification.hounsfield import DENSE_BONE_HU, SKIN_HU
from ctdeface_worker.verification.location import place_of_canonical

TISSUE_ML = (15.0, 1600.0)
MOST_BONE = 0.12
"""Largest share of bone in the tissue that a soft-tissue mask removes.

Metal streaks and thin facial bones cause some; a misplaced mask removes more.
"""
MOST_APART = 0.1
"""Largest share of the mask's tissue outside its largest piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedHead:
    """The input as the mask checks need it.

    Attributes:
        canonical: the input on the gate's grid.
        cavity: intracranial cavity, (z, y, x) on that grid.
        geometry: of the input, to name slices.
    """

    canonical: Canonical
    cavity: BoolArray
    geometry: Geometry

    @property
    def middle_mm(self) -> float:
        """LPS x of the middle of the cavity."""
        columns = np.flatnonzero(self.cavity.any(axis=(0, 1)))
        middle = (columns[0] + columns[-1]) / 2
        return float(self.canonical.origin_lps[0] + middle * self.canonical.spacing_mm)

    def place(self, voxels: BoolArray) -> str:
        """Describe where voxels (z, y, x) of the grid are."""
        return place_of_canonical(voxels, self.canonical, self.geometry, self.middle_mm)


def check_mask(head: ExaminedHead, face: BoolArray, *, bone_stays: bool) -> tuple[Check, ...]:
    """Check a face mask against the input.

    Args:
        head: the input.
        face: the mask, (z, y, x) on the gate's grid.
        bone_stays: whether the profile leaves the facial bones.
    """
    hu = head.canonical.hu
    tissue = face & (hu > SKIN_HU) & head.canonical.valid
    size = _size(float(tissue.sum() * (head.canonical.spacing_mm**3 / 1000)))
    if not tissue.any():
        return (size,)
    bone = tissue & (hu > DENSE_BONE_HU)
    return (
        size,
        _bone(float(bone.sum() / tissue.sum()), bone_stays=bone_stays).located(
            lambda: head.place(bone)
        ),
        _anterior(head, tissue),
        _pieces(head, face, tissue),
    )


def _size(ml: float) -> Check:
    low, high = TISSUE_ML
    return Check(
        name="mask_size",
        passed=low <= ml <= high,
        figure=ml,
        bound=low if ml < low else high,
        message=f"the mask removes {ml:.1f} ml of tissue; {low:.0f} to {high:.0f} ml are required",
    )


def _bone(share: float, *, bone_stays: bool) -> Check:
    found = "{} of the removed tissue is bone or metal"
    if bone_stays:
        return at_most("bone_stays", share, MOST_BONE, percent, found)
    message = f"{found.format(percent(share))}; the profile has no limit"
    return Check(name="bone_stays", passed=True, figure=share, message=message)


def _anterior(head: ExaminedHead, tissue: BoolArray) -> Check:
    ahead_mm = (
        float(np.nonzero(head.cavity)[1].mean() - np.nonzero(tissue)[1].mean())
        * head.canonical.spacing_mm
    )
    direction = "in front of" if ahead_mm > 0 else "behind"
    return Check(
        name="mask_is_anterior",
        passed=ahead_mm > 0,
        figure=ahead_mm,
        bound=0.0,
        message=f"the middle of the mask is {abs(ahead_mm):.1f} mm {direction} the middle of the "
        "brain; more than 0 mm in front is required",
    )


def _pieces(head: ExaminedHead, face: BoolArray, tissue: BoolArray) -> Check:
    """Check that the mask's tissue is one piece.

    Removed air between two parts, as seen from the front, joins them: a face and the cloth before
    it.
    """
    before = np.logical_or.accumulate(tissue, axis=1)
    behind = np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
    labels, _ = ndimage.label(face & before & behind, np.ones((3, 3, 3)))
    sizes = np.bincount(labels[tissue])
    share = 1 - float(sizes.max() / sizes.sum())
    return at_most(
        "mask_is_one_piece",
        share,
        MOST_APART,
        percent,
        "{} of the mask's tissue is not connected with the rest, directly or through removed air",
    ).located(lambda: head.place(tissue & (labels != sizes.argmax())))
