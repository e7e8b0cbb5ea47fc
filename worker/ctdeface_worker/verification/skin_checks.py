"""Check by rays from the front that the face is gone."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.verification.check import (
    Check,
    at_least,
    at_most,
    fine_percent,
    percent,
    rays,
)
from ctdeface_worker.verification.skin import (
    BEHIND_MM,
    BONE_BEHIND_MM,
    COVER_MM,
    LAYER_MM,
    NOSE_BASE_MM,
    RayResult,
)

FEWEST_RAYS = 150
LEAST_REMOVED = 0.985
LEAST_REMOVED_IN_PART = 0.95
FEWEST_RAYS_IN_PART = 40
LEVELS = 6
MOST_BRIGHT = 0.15
SQUARE_MM = 30.0
MOST_IN_LAYER, MOST_IN_LAYER_OVERALL = 0.4, 0.2
"""Largest share of rays that end in a thin layer, in any square and of all rays."""
MOST_BEHIND_AIR = 0.6
MOST_ABOVE_NOSE_BASE = 0.4
LEAST_AT_FRONT = 0.5
FEWEST_WITH_BONE = 0.1
LEAST_ON_BONE = 0.62


def check_skin(result: RayResult, *, bone_stays: bool) -> tuple[Check, ...]:
    """Return the checks of the rays from the front.

    Args:
        result: the rays in input and output.
        bone_stays: whether the profile leaves the facial bones, so that the mask ends on them.
    """
    counted = int(result.front.counted.sum())
    enough = at_least(
        "facial_skin_found",
        float(counted),
        float(FEWEST_RAYS),
        rays,
        "{} from the front meet facial skin in the input",
    )
    if not enough.passed:
        return (enough,)
    return (
        enough,
        _whole_face(result),
        _weakest_part(result),
        *_check_layers(result),
        *_check_foremost(result),
        _brightness(result),
        *_check_bone(result, bone_stays=bone_stays),
    )


def _whole_face(result: RayResult) -> Check:
    front = result.front
    return at_least(
        "facial_skin_removed",
        float(result.removed[front.counted].mean()),
        LEAST_REMOVED,
        fine_percent,
        "{} of the facial skin in view is gone",
    ).located(lambda: f"remaining: {front.place(front.counted & ~result.removed)}")


def _brightness(result: RayResult) -> Check:
    front = result.front
    return at_most(
        "skin_not_bright",
        float(front.bright.sum() / (front.counted.sum() + front.bright.sum())),
        MOST_BRIGHT,
        percent,
        "{} of the rays meet bone or metal first and are not counted",
    ).located(lambda: front.place(front.bright))


def _check_bone(result: RayResult, *, bone_stays: bool) -> Iterator[Check]:
    """Yield the checks of the bone behind the skin.

    A soft-tissue mask ends on the facial bone. A misplaced one leaves flesh before it or cuts into
    it.
    """
    front = result.front
    found = at_least(
        "facial_bone_found",
        float(front.bone_behind.sum() / front.counted.sum()),
        FEWEST_WITH_BONE,
        percent,
        f"{{}} of the facial skin in view has bone within {BONE_BEHIND_MM:.0f} mm behind it",
    )
    yield found
    if found.passed and bone_stays:
        yield at_least(
            "facial_bone_uncovered",
            float(result.ends_on_bone[front.bone_behind].mean()),
            LEAST_ON_BONE,
            percent,
            "{} of the rays to skin with bone behind it now end on that bone",
        ).located(lambda: f"elsewhere: {front.place(front.bone_behind & ~result.ends_on_bone)}")


def _check_layers(result: RayResult) -> Iterator[Check]:
    """Yield the checks for a face under its first surface.

    That surface may be a layer of the face or something that covered it.
    """
    front = result.front
    square = f"of the rays in the worst square of {SQUARE_MM / 10:.0f} cm"
    in_layer = f"end in flesh less than {LAYER_MM:.0f} mm behind the skin"
    share, where = _worst_square(result, result.ends_in_layer)
    yield at_most(
        "face_not_peeled", share, MOST_IN_LAYER, percent, f"{{}} {square} {in_layer}"
    ).located(lambda: front.place(where))
    yield at_most(
        "no_strips_left",
        float(result.ends_in_layer.sum() / front.counted.sum()),
        MOST_IN_LAYER_OVERALL,
        percent,
        f"{{}} of all rays to facial skin {in_layer}",
    ).located(lambda: front.place(result.ends_in_layer))
    covered_share, covered = _worst_square(result, result.ends_behind_air)
    yield at_most(
        "no_skin_left_behind_a_cover",
        covered_share,
        MOST_BEHIND_AIR,
        percent,
        f"{{}} {square} end in flesh that had air before it less than {COVER_MM:.0f} mm behind "
        "the skin, as a face behind a cloth has",
    ).located(lambda: front.place(covered))


def _check_foremost(result: RayResult) -> Iterator[Check]:
    """Yield the checks of the foremost part, usually the nose.

    It must be gone to its base, and must not stand out so far that it hides the face.
    """
    front = result.front
    above_base = front.foremost & result.ends_above_nose_base
    yield at_most(
        "foremost_part_removed",
        float(result.ends_above_nose_base[front.foremost].mean()),
        MOST_ABOVE_NOSE_BASE,
        percent,
        "{} of the rays to the foremost part of the face end in flesh less than "
        f"{NOSE_BASE_MM:.0f} mm behind it",
    ).located(lambda: front.place(above_base))
    yield at_least(
        "face_seen",
        front.front_share,
        LEAST_AT_FRONT,
        percent,
        f"{{}} of the head's surface in view is within {BEHIND_MM:.0f} mm behind its foremost part",
    )


def _worst_square(result: RayResult, marked: BoolArray) -> tuple[float, BoolArray]:
    """Return share and marked rays of the worst square.

    The share is relative to the square with the most counted rays.
    """
    side = round(SQUARE_MM / result.front.mm)
    density, most = (
        ndimage.uniform_filter(each.astype(np.float64), side, mode="constant")
        for each in (marked, result.front.counted)
    )
    z, x = np.unravel_index(int(density.argmax()), density.shape)
    within = np.zeros_like(marked)
    within[max(z - side // 2, 0) : z + side // 2 + 1, max(x - side // 2, 0) : x + side // 2 + 1] = (
        True
    )
    return float(density.max()) / float(most.max()), marked & within


def _weakest_part(result: RayResult) -> Check:
    """Check left half, right half and six levels separately.

    Otherwise a mask that misses one part could pass because of the others.
    """
    counted, removed = result.front.counted, result.removed
    rows, columns = np.flatnonzero(counted.any(axis=1)), np.flatnonzero(counted.any(axis=0))
    z, x = np.indices(counted.shape)
    height, middle = (rows[-1] - rows[0] + 1) / LEVELS, (columns[0] + columns[-1]) / 2
    parts = {
        f"level {level + 1} of {LEVELS} from the chin": (z - rows[0]) // height == level
        for level in range(LEVELS)
    } | {"the right half": x < middle, "the left half": x >= middle}
    shares = {
        name: float(removed[counted & part].mean())
        for name, part in parts.items()
        if (counted & part).sum() >= FEWEST_RAYS_IN_PART
    }
    weakest = min(shares, key=lambda name: shares[name], default="no part with enough rays")
    return at_least(
        "every_part_of_the_face_removed",
        shares.get(weakest, 0.0),
        LEAST_REMOVED_IN_PART,
        fine_percent,
        f"{{}} of the facial skin is gone in its weakest part, {weakest}",
    ).located(
        lambda: f"remaining: {result.front.place(counted & parts.get(weakest, counted) & ~removed)}"
    )
