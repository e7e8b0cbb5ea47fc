"""Whether the face is gone, by what rays from the front meet: skin, bone, or flesh that was behind it (DESIGN section 10)."""

import numpy as np
from scipy import ndimage

from ctdeface_worker.domain import BoolArray
from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.skin import PEELED_MM, Rays

LEAST_REMOVED = 0.985
LEAST_REMOVED_IN_PART = 0.95
FEWEST_RAYS_IN_PART = 40
FEWEST_RAYS = 150
MOST_BRIGHT = 0.15
LEAST_UNCOVERED = 0.62
FEWEST_BEFORE_BONE = 0.1
SQUARE_MM = 30.0
MOST_PEELED = 0.4
MOST_BARED = 0.6


def check_skin(rays: Rays, *, bone_stays: bool) -> tuple[Check, ...]:
    """Judge by what rays from the front meet in input and output; `bone_stays` where the mask was to end on the bone."""
    counted = int(rays.counts.sum())
    enough = Check(
        name="facial_skin_found",
        passed=counted >= FEWEST_RAYS,
        figure=float(counted),
        bound=float(FEWEST_RAYS),
        message=f"{counted} rays from the front meet facial skin in the input",
    )
    if not enough.passed:
        return (enough,)
    bright = float(rays.bright.sum() / (counted + rays.bright.sum()))
    share = float(rays.removed[rays.counts].mean())
    return (
        enough,
        Check(
            name="facial_skin_removed",
            passed=share >= LEAST_REMOVED,
            figure=share,
            bound=LEAST_REMOVED,
            message=f"{share:.2%} of the facial skin in view is gone",
        ),
        _weakest_part(rays),
        *_check_squares(rays),
        Check(
            name="skin_not_bright",
            passed=bright <= MOST_BRIGHT,
            figure=bright,
            bound=MOST_BRIGHT,
            message=f"{bright:.1%} of the rays meet bone or metal first and were not counted",
        ),
        *(_check_bone(rays) if bone_stays else ()),
    )


def _check_bone(rays: Rays) -> tuple[Check, ...]:
    """A soft-tissue mask ends on the facial bone; one at the wrong place leaves flesh before it or cuts into it."""
    before = float(rays.covered.sum() / rays.counts.sum())
    found = Check(
        name="facial_bone_found",
        passed=before >= FEWEST_BEFORE_BONE,
        figure=before,
        bound=FEWEST_BEFORE_BONE,
        message=f"behind {before:.0%} of the skin there is bone to tell by where the mask ends",
    )
    if not found.passed:
        return (found,)
    share = float(rays.uncovered[rays.covered].mean())
    return (
        found,
        Check(
            name="facial_bone_uncovered",
            passed=share >= LEAST_UNCOVERED,
            figure=share,
            bound=LEAST_UNCOVERED,
            message=f"where bone lies behind the skin, {share:.0%} of the rays now end on it",
        ),
    )


def _check_squares(rays: Rays) -> tuple[Check, Check]:
    """A place where only the first surface went, be it a layer of the face or what covered it, must be smaller than a nose."""
    peeled, bared = (_fullest_square(rays, which) for which in (rays.peeled, rays.bared))
    square = f"in a square of {SQUARE_MM / 10:.0f} cm"
    return (
        Check(
            name="face_not_peeled",
            passed=peeled <= MOST_PEELED,
            figure=peeled,
            bound=MOST_PEELED,
            message=f"{square}, {peeled:.0%} of the rays end in flesh less than {PEELED_MM:.0f} mm behind the skin",
        ),
        Check(
            name="no_skin_left_behind_a_cover",
            passed=bared <= MOST_BARED,
            figure=bared,
            bound=MOST_BARED,
            message=f"{square}, {bared:.0%} of the rays end in flesh that had air before it, as skin behind a cloth has",
        ),
    )


def _fullest_square(rays: Rays, which: BoolArray) -> float:
    """Return the largest share of a square's rays, where the view is smaller than a square of what is in view."""
    side = round(SQUARE_MM / rays.mm)
    fullest, whole = (float(ndimage.uniform_filter(each.astype(np.float64), side, mode="constant").max()) for each in (which, rays.counts))
    return fullest / whole


def _weakest_part(rays: Rays) -> Check:
    """Check left, right and six levels on their own: a mask that misses a part must not pass by the rest."""
    levels, columns = np.flatnonzero(rays.counts.any(axis=1)), np.flatnonzero(rays.counts.any(axis=0))
    z, x = np.indices(rays.counts.shape)
    height, middle = (levels[-1] - levels[0] + 1) / 6, (columns[0] + columns[-1]) / 2
    parts = [(z - levels[0]) // height == level for level in range(6)] + [x < middle, x >= middle]
    shares = [float(rays.removed[rays.counts & part].mean()) for part in parts if (rays.counts & part).sum() >= FEWEST_RAYS_IN_PART]
    weakest = min(shares, default=0.0)
    return Check(
        name="every_part_of_the_face_removed",
        passed=weakest >= LEAST_REMOVED_IN_PART,
        figure=weakest,
        bound=LEAST_REMOVED_IN_PART,
        message=f"of the weakest part of the face (left, right, six levels) {weakest:.2%} is gone",
    )
