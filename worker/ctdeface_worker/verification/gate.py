"""The gate: from input and written output, is the face gone and everything else untouched? See DESIGN section 10.

It finds cavity, window and skin in the input by its own means and refuses when it cannot. It knows
nothing of segmentation.
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
from ctdeface_worker.verification import skin
from ctdeface_worker.verification.border import check_upper_border
from ctdeface_worker.verification.cavity import find_cavity
from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.mask import check_mask
from ctdeface_worker.verification.skin_checks import check_skin
from ctdeface_worker.verification.window import find_window

GRID_MM = 2.0
SMALLEST_CAVITY_ML = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What the gate found in an input, before it knows of any mask.

    Attributes:
        volume: the input.
        canonical: the same on the gate's grid.
        cavity: the intracranial cavity on that grid.
        facing: what rays from the front meet; None where the cavity is too small to say where the
            face is.
    """

    volume: Volume
    canonical: Canonical
    cavity: BoolArray
    facing: skin.FrontSurface | None


def verify_volume(
    before: Volume, after: Volume, face: BoolArray, *, profile: Profile
) -> tuple[Check, ...]:
    """Check one defaced volume.

    Args:
        before: the input.
        after: the output, read back from the written files.
        face: the mask, stored voxels (slice, row, column), True = removed.
        profile: what the mask was to cover.

    Returns:
        Every check that could be made; the volume is proven when all passed.
    """
    return judge(examine(before), after, face, profile=profile)


def examine(before: Volume) -> Examined:
    """Find cavity, window and skin in an input; one examination serves any number of masks."""
    canonical = to_canonical(before, spacing_mm=GRID_MM)
    cavity = find_cavity(canonical)
    facing = (
        skin.look(before, find_window(canonical, cavity))
        if _ml(cavity) >= SMALLEST_CAVITY_ML
        else None
    )
    return Examined(volume=before, canonical=canonical, cavity=cavity, facing=facing)


def judge(seen: Examined, after: Volume, face: BoolArray, *, profile: Profile) -> tuple[Check, ...]:
    """Check one defaced volume against its input; as `verify_volume`."""
    before, canonical, cavity = seen.volume, seen.canonical, seen.cavity
    values = _check_values(before, after, face)
    if before.geometry.shape != after.geometry.shape or not face.any():
        return (
            *values,
            Check(
                name="mask_size",
                passed=False,
                figure=0.0,
                message="the mask is empty or of another shape",
            ),
        )
    ml = _ml(cavity)
    found = Check(
        name="cavity_found",
        passed=seen.facing is not None,
        figure=ml,
        bound=SMALLEST_CAVITY_ML,
        message=f"the intracranial cavity in view measures {ml:.0f} ml",
    )
    if seen.facing is None:
        return (*values, found)
    overlap = int(np.count_nonzero(mask_to_stored(cavity, canonical, before.geometry) & face))
    brain = Check(
        name="brain_untouched",
        passed=overlap == 0,
        figure=float(overlap),
        bound=0.0,
        message=f"{overlap} voxels of the intracranial cavity lie in the mask",
    )
    removed = (
        mask_to_canonical(face, before.geometry, spacing_mm=canonical.spacing_mm) & canonical.valid
    )
    plausible = check_mask(canonical, removed, cavity, bone_stays=profile is Profile.SOFT_TISSUE)
    upper = check_upper_border(canonical, removed)
    rays = skin.cast(seen.facing, after)
    return (
        *values,
        found,
        brain,
        *plausible,
        *((upper,) if upper else ()),
        *check_skin(rays, bone_stays=profile is Profile.SOFT_TISSUE),
    )


def _ml(cavity: BoolArray) -> float:
    return float(cavity.sum() * GRID_MM**3 / 1000)


def _check_values(before: Volume, after: Volume, face: BoolArray) -> tuple[Check, ...]:
    """Outside the mask and on padding nothing changed; inside there is fill, dark as air."""
    changeable = face & before.valid
    same = before.hu.shape == after.hu.shape
    outside = int(np.count_nonzero((before.hu != after.hu) & ~changeable)) if same else -1
    brightest = float(after.hu[changeable].max(initial=-np.inf)) if same else np.inf
    return (
        Check(
            name="nothing_else_changed",
            passed=same and outside == 0 and bool((before.valid == after.valid).all()),
            figure=float(outside),
            bound=0.0,
            message=f"{outside} voxels outside the mask differ",
        ),
        Check(
            name="fill_is_air",
            passed=brightest <= HIGHEST_FILL_HU + 1,
            figure=brightest if np.isfinite(brightest) else None,
            bound=float(HIGHEST_FILL_HU),
            message="what was removed is as dark as air",
        ),
    )
