"""Whether the face is gone, by what rays from the front meet: skin, bone, or flesh that was behind it (DESIGN section 10)."""

import numpy as np
from scipy import ndimage

from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.skin import PEELED_MM, Rays

LEAST_REMOVED = 0.985
LEAST_REMOVED_IN_PART = 0.95
FEWEST_RAYS_IN_PART = 40
FEWEST_RAYS = 150
MOST_BRIGHT = 0.15
LEAST_UNCOVERED = 0.62
FEWEST_RAYS_ON_BONE = 100
SQUARE_MM = 30.0
MOST_PEELED = 0.4


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
        _check_peeled(rays),
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
    if rays.covered.sum() < FEWEST_RAYS_ON_BONE:
        return ()
    share = float(rays.uncovered[rays.covered].mean())
    return (
        Check(
            name="facial_bone_uncovered",
            passed=share >= LEAST_UNCOVERED,
            figure=share,
            bound=LEAST_UNCOVERED,
            message=f"where bone lies behind the skin, {share:.0%} of the rays now end on it",
        ),
    )


def _check_peeled(rays: Rays) -> Check:
    """Find a place where only a layer went: a cloth that lies on the skin is the first surface, and the face the next."""
    share = float(ndimage.uniform_filter(rays.peeled.astype(np.float64), size=round(SQUARE_MM / rays.mm), mode="constant").max())
    return Check(
        name="face_not_peeled",
        passed=share <= MOST_PEELED,
        figure=share,
        bound=MOST_PEELED,
        message=f"in a square of {SQUARE_MM / 10:.0f} cm, {share:.0%} of the rays end in flesh within {PEELED_MM:.0f} mm of the skin",
    )


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
