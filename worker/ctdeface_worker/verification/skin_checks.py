"""Whether the face is gone, by what rays from the front meet: skin, bone, or flesh that was behind it (DESIGN section 10)."""

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.skin import PEELED_MM, SHALLOW_MM, Rays

LEAST_REMOVED = 0.985
LEAST_REMOVED_IN_PART = 0.95
FEWEST_RAYS_IN_PART = 40
FEWEST_RAYS = 150
MOST_BRIGHT = 0.15
LEAST_UNCOVERED = 0.62
FEWEST_BEFORE_BONE = 0.1
SQUARE_MM = 30.0
MOST_PEELED, MOST_PEELED_IN_ALL = 0.4, 0.2
MOST_BARED = 0.6
MOST_SHALLOW = 0.4
LEAST_SEEN = 0.5


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
        *_check_layers(rays),
        *_check_foremost(rays),
        Check(
            name="skin_not_bright",
            passed=bright <= MOST_BRIGHT,
            figure=bright,
            bound=MOST_BRIGHT,
            message=f"{bright:.1%} of the rays meet bone or metal first and were not counted",
        ),
        *_check_bone(rays, bone_stays=bone_stays),
    )


def _check_bone(rays: Rays, *, bone_stays: bool) -> tuple[Check, ...]:
    """A soft-tissue mask ends on the facial bone; one at the wrong place leaves flesh before it or cuts into it."""
    before = float(rays.covered.sum() / rays.counts.sum())
    found = Check(
        name="facial_bone_found",
        passed=before >= FEWEST_BEFORE_BONE,
        figure=before,
        bound=FEWEST_BEFORE_BONE,
        message=f"bone lies close behind {before:.0%} of the skin in view; behind a face it is {FEWEST_BEFORE_BONE:.0%} at least",
    )
    if not found.passed or not bone_stays:
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


def _check_layers(rays: Rays) -> tuple[Check, Check, Check]:
    """Where only the first surface went, be it a layer of the face or what covered it, the face is still there."""
    peeled, bared = (_fullest_square(rays, which) for which in (rays.peeled, rays.bared))
    in_all = float(rays.peeled.sum() / rays.counts.sum())
    square, layer = (
        f"in the fullest square of {SQUARE_MM / 10:.0f} cm",
        f"end in flesh less than {PEELED_MM:.0f} mm behind the skin",
    )
    return (
        Check(
            name="face_not_peeled",
            passed=peeled <= MOST_PEELED,
            figure=peeled,
            bound=MOST_PEELED,
            message=f"{square} {peeled:.0%} of the rays {layer}",
        ),
        Check(
            name="no_strips_left",
            passed=in_all <= MOST_PEELED_IN_ALL,
            figure=in_all,
            bound=MOST_PEELED_IN_ALL,
            message=f"of all rays to facial skin {in_all:.0%} {layer}",
        ),
        Check(
            name="no_skin_left_behind_a_cover",
            passed=bared <= MOST_BARED,
            figure=bared,
            bound=MOST_BARED,
            message=f"{square} {bared:.0%} of the rays end in flesh that had air before it, as skin behind a cloth has",
        ),
    )


def _check_foremost(rays: Rays) -> tuple[Check, Check]:
    """What stands out most, a nose as a rule, must be gone to its base; and nothing may stand out so far that it hides the face."""
    shallow = float(rays.shallow[rays.foremost].mean())
    return (
        Check(
            name="foremost_part_removed",
            passed=shallow <= MOST_SHALLOW,
            figure=shallow,
            bound=MOST_SHALLOW,
            message=f"{shallow:.0%} of the rays to the foremost part of the face end in flesh less than {SHALLOW_MM:.0f} mm behind it",
        ),
        Check(
            name="face_seen",
            passed=rays.seen >= LEAST_SEEN,
            figure=rays.seen,
            bound=LEAST_SEEN,
            message=f"{rays.seen:.0%} of what is in view of the head lies no farther than a face behind the foremost of it",
        ),
    )


def _fullest_square(rays: Rays, which: BoolArray) -> float:
    """Return the largest share of any square, relative to the square that holds the most facial skin."""
    side = round(SQUARE_MM / rays.mm)
    fullest, whole = (
        float(ndimage.uniform_filter(each.astype(np.float64), side, mode="constant").max())
        for each in (which, rays.counts)
    )
    return fullest / whole


def _weakest_part(rays: Rays) -> Check:
    """Check left, right and six levels on their own: a mask that misses a part must not pass by the rest."""
    levels, columns = (
        np.flatnonzero(rays.counts.any(axis=1)),
        np.flatnonzero(rays.counts.any(axis=0)),
    )
    z, x = np.indices(rays.counts.shape)
    height, middle = (levels[-1] - levels[0] + 1) / 6, (columns[0] + columns[-1]) / 2
    parts = [(z - levels[0]) // height == level for level in range(6)] + [x < middle, x >= middle]
    shares = [
        float(rays.removed[rays.counts & part].mean())
        for part in parts
        if (rays.counts & part).sum() >= FEWEST_RAYS_IN_PART
    ]
    weakest = min(shares, default=0.0)
    return Check(
        name="every_part_of_the_face_removed",
        passed=weakest >= LEAST_REMOVED_IN_PART,
        figure=weakest,
        bound=LEAST_REMOVED_IN_PART,
        message=f"of the weakest part of the face (left, right, six levels) {weakest:.2%} is gone",
    )
