"""The gate: prove that only the face is gone.

It finds cavity, window and skin in the input by its own means, and refuses a series where it cannot
find them. It is independent of segmentation (decision 0004); docs/gate.md explains every check.
"""

from dataclasses import dataclass

import numpy as np

from ctdeface_shared.jobs.options import HIGHEST_FILL_HU, Profile
from ctdeface_worker.imaging.canonical import (
    Canonical,
    mask_to_canonical,
    mask_to_stored,
    to_canonical,
)
from ctdeface_worker.imaging.domain import BoolArray, Volume
from ctdeface_worker.verification.border import check_upper_border
from ctdeface_worker.verification.cavity import find_cavity
from ctdeface_worker.verification.check import Check, at_least, milliliters, none_left
from ctdeface_worker.verification.faces import FaceLike, check_one_face, find_face_like
from ctdeface_worker.verification.heads import (
    FurtherCavity,
    check_one_skull,
    find_further_cavity,
)
from ctdeface_worker.verification.location import place_of_stored
from ctdeface_worker.verification.mask import TISSUE_ML, ExaminedHead, check_mask
from ctdeface_worker.verification.skin import FrontSurface, trace_input, trace_output
from ctdeface_worker.verification.skin_checks import check_skin
from ctdeface_worker.verification.window import find_window

GRID_MM = 2.0
SMALLEST_CAVITY_ML = 40.0
FILL_TOLERANCE_HU = 1
"""Largest error of a fill value that is rounded to a stored value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The findings in an input, independent of any mask.

    Attributes:
        volume: the input.
        canonical: the same on the gate's grid.
        cavity: the intracranial cavity on that grid.
        further: the largest cavity of bone besides it.
        face_like: what resembles a face most apart from the head; None like `front`.
        front: surfaces that rays from the front meet; None where the cavity is too small to locate
            the face.
    """

    volume: Volume
    canonical: Canonical
    cavity: BoolArray
    further: FurtherCavity
    face_like: FaceLike | None
    front: FrontSurface | None


def verify_volume(
    before: Volume, after: Volume, face: BoolArray, *, profile: Profile
) -> tuple[Check, ...]:
    """Check one defaced volume.

    Args:
        before: the input.
        after: the output, read back from the written files.
        face: the mask, stored voxels (slice, row, column), True = removed.
        profile: what the mask should cover.

    Returns:
        Every check that could be made; the volume is proven when all passed.
    """
    return check_output(examine_input(before), after, face, profile=profile)


def examine_input(before: Volume) -> Examination:
    """Find cavity, window and skin in an input."""
    canonical = to_canonical(before, spacing_mm=GRID_MM)
    cavity = find_cavity(canonical)
    front, face_like = None, None
    if _ml(cavity) >= SMALLEST_CAVITY_ML:
        front = trace_input(before, find_window(canonical, cavity))
        face_like = find_face_like(canonical, cavity)
    return Examination(
        volume=before,
        canonical=canonical,
        cavity=cavity,
        further=find_further_cavity(canonical, cavity),
        face_like=face_like,
        front=front,
    )


def check_output(
    examination: Examination, after: Volume, face: BoolArray, *, profile: Profile
) -> tuple[Check, ...]:
    """Check one defaced volume against its examined input; see `verify_volume`."""
    before, canonical, cavity = examination.volume, examination.canonical, examination.cavity
    values = _check_values(before, after, face)
    if before.geometry.shape != after.geometry.shape or not face.any():
        return (*values, _no_mask(before, after))
    found = at_least(
        "cavity_found",
        _ml(cavity),
        SMALLEST_CAVITY_ML,
        milliliters,
        "{} of the intracranial cavity are in view",
    )
    alone = check_one_skull(examination.further, before.geometry)
    if examination.front is None or examination.face_like is None:
        return (*values, found, alone)
    bone_stays = profile is Profile.SOFT_TISSUE
    head = ExaminedHead(canonical=canonical, cavity=cavity, geometry=before.geometry)
    removed = (
        mask_to_canonical(face, before.geometry, spacing_mm=canonical.spacing_mm) & canonical.valid
    )
    upper_border = check_upper_border(canonical, removed)
    result = trace_output(examination.front, after)
    return (
        *values,
        found,
        alone,
        check_one_face(examination.face_like, before.geometry),
        _check_brain(head, face),
        *check_mask(head, removed, bone_stays=bone_stays),
        *((upper_border,) if upper_border else ()),
        *check_skin(result, bone_stays=bone_stays),
    )


def _ml(cavity: BoolArray) -> float:
    return float(cavity.sum() * GRID_MM**3 / 1000)


def _no_mask(before: Volume, after: Volume) -> Check:
    """Return the failed check of an empty mask or changed shape."""
    found = "the mask is empty"
    if before.geometry.shape != after.geometry.shape:
        found = f"the output has the shape {after.geometry.shape}, not {before.geometry.shape}"
    low, high = TISSUE_ML
    message = f"{found}; {low:.0f} to {high:.0f} ml of removed tissue are required"
    return Check(name="mask_size", passed=False, figure=0.0, message=message)


def _check_brain(head: ExaminedHead, face: BoolArray) -> Check:
    """Check that the mask leaves the cavity untouched."""
    overlap = mask_to_stored(head.cavity, head.canonical, head.geometry) & face
    return none_left(
        "brain_untouched",
        int(np.count_nonzero(overlap)),
        "{} voxels of the intracranial cavity are in the mask",
    ).located(lambda: place_of_stored(overlap, head.geometry, head.middle_mm))


def _check_values(before: Volume, after: Volume, face: BoolArray) -> tuple[Check, Check]:
    """Check that only the mask changed, and to air."""
    if before.hu.shape != after.hu.shape:
        shape = f"the output has the shape {after.hu.shape}, not {before.hu.shape}"
        return (
            Check(
                name="nothing_else_changed",
                passed=False,
                figure=-1.0,
                bound=0.0,
                message=f"{shape}; 0 voxels outside the mask may differ",
            ),
            Check(
                name="fill_is_air",
                passed=False,
                bound=float(HIGHEST_FILL_HU),
                message=f"{shape}; a fill of at most {HIGHEST_FILL_HU} HU is required",
            ),
        )
    changeable = face & before.valid
    return _check_unchanged(before, after, changeable), _check_fill(after, changeable)


def _check_unchanged(before: Volume, after: Volume, changeable: BoolArray) -> Check:
    outside = (before.hu != after.hu) & ~changeable
    count = int(np.count_nonzero(outside))
    padding = int(np.count_nonzero(before.valid != after.valid))
    found = f"{count} voxels outside the mask differ"
    if padding:
        found = f"{found} and {padding} voxels are padding in one of input and output only"
    return Check(
        name="nothing_else_changed",
        passed=count == 0 and padding == 0,
        figure=float(count),
        bound=0.0,
        message=f"{found}; 0 are allowed",
    ).located(lambda: _place_of_changes(before, outside | (before.valid != after.valid)))


def _place_of_changes(before: Volume, changed: BoolArray) -> str:
    geometry = before.geometry
    middle = geometry.affine_lps @ [*((np.array(geometry.shape) - 1) / 2), 1.0]
    return place_of_stored(changed, geometry, float(middle[0]))


def _check_fill(after: Volume, changeable: BoolArray) -> Check:
    brightest = float(after.hu[changeable].max(initial=-np.inf))
    required = f"at most {HIGHEST_FILL_HU} HU is required"
    found = f"the brightest removed voxel has {brightest:.0f} HU"
    if not np.isfinite(brightest):
        found = "the mask holds padding only, which is not filled"
    return Check(
        name="fill_is_air",
        passed=brightest <= HIGHEST_FILL_HU + FILL_TOLERANCE_HU,
        figure=brightest if np.isfinite(brightest) else None,
        bound=float(HIGHEST_FILL_HU),
        message=f"{found}; {required}",
    )
