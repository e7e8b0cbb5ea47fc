"""Decide between network and geometric rules (decision 0010).

The network proposes a face mask, and the geometric rules decide what becomes of it. The functions
are pure. The gate knows nothing of this rule and examines the written output in any case.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_shared.errors import SegmentersDisagree
from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.domain import BoolArray

LEAST_DICE = 0.60
"""Smallest Dice of the two masks in the body; below it, one of them is not on the face."""
GOOD_DICE = 0.70
"""Dice from which both masks count as the same face.

The bound is not higher because beside the eyes the geometric mask reaches farther back than a face.
"""
MOST_OUT_OF_REACH = 0.25
"""Largest share of the network's mask beyond the reach: in brain, bone, arms or the nape.

More is not a deviation at the border.
"""
MOST_OUTSIDE = 0.08
"""Largest share beyond the zone with which the network's mask is used.

A mask shifted by 15 mm up, down, back or to the side has 18 % there.
"""
MOST_RESIDUAL = 0.005
"""Largest share of the front of the face whose skin a network may leave without being mended."""
MOST_MENDED = 0.10
"""Largest share that is mended ray by ray; with more, the network's mask is not used alone."""
AROUND_GAP = 2
"""Voxels by which the mended part is wider than the gap.

It is also one voxel deeper than necessary, because resampling to the scan loses half a voxel.
"""
ABOVE_MASK = 5
"""Largest distance in voxels from the network's mask at which the upper forehead is mended."""


class Verdict(StrEnum):
    """Outcome of the comparison of the two masks."""

    AGREED = "agreed"
    MENDED = "mended"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPair:
    """Both masks and the anatomy of a head on one grid.

    Every array is (z, y, x) of the same shape, except `front` and `core`, which are (z, x).

    Attributes:
        network: the network's mask.
        geometric: the mask of the geometric rules, up to the border in front.
        zone: voxels that may be removed, in the slices of the face by geometry.
        reach: the same in every slice.
        body: the patient.
        bone: bone of the body.
        front: rays from the front that meet the middle of the face, from mid-forehead to the chin.
        core: those of them below mid-forehead, by which a network is judged.
        depth: voxels of skin to be removed along such a ray unless bone comes first.
        bare: voxels to be removed even then.
    """

    network: BoolArray
    geometric: BoolArray
    zone: BoolArray
    reach: BoolArray
    body: BoolArray
    bone: BoolArray
    front: BoolArray
    core: BoolArray
    depth: int
    bare: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The mask to be removed, with its figures.

    Attributes:
        mask: never beyond the reach, except for what the geometric mask removes.
        verdict: outcome of the comparison.
        dice: of the two masks in the body, the network's within the zone.
        outside: share of the network's mask outside the zone.
        residual: share of the rays to the core that still meet skin behind the network's mask.
    """

    mask: BoolArray
    verdict: Verdict
    dice: float
    outside: float
    residual: float


def decide(pair: MaskPair) -> Decision:
    """Use, mend or join the network's mask, or refuse.

    It is used within the zone where the two agree, and mended or joined with the geometric mask
    where they differ. In front of the skin, the geometric mask applies in any case, because
    everything there is removed up to the image border. What is before the network's mask is removed
    as far as the reach allows.

    Raises:
        SegmentersDisagree: the masks do not show the same face.
    """
    proposed = pair.network & pair.body
    allowed = proposed & pair.zone
    dice = _dice(allowed, pair.geometric & pair.body)
    outside = 1 - _share(allowed, proposed)
    _check_agreement(pair, proposed, dice)
    mask = (pair.network & pair.zone) | (pair.geometric & ~pair.body)
    gaps = _remaining_skin(mask, pair)
    residual = _share(gaps & pair.core, pair.core & pair.body.any(axis=1))
    verdict = Verdict.AGREED if residual <= MOST_RESIDUAL else Verdict.MENDED
    if dice < GOOD_DICE or outside > MOST_OUTSIDE or residual > MOST_MENDED:
        verdict, mask = Verdict.REPAIRED, mask | pair.geometric
    elif gaps.any():
        mask |= _mended_part(mask, gaps, pair)
    # a head that leans has more face above or below the zone
    proposed_in_reach = pair.network & pair.reach
    # cloth before removed skin would keep its shape
    before = morphology.before(proposed_in_reach) & pair.reach
    mask = mask | _film_on_bone(mask, pair) | proposed_in_reach | before
    mask |= _outermost_voxels(mask, pair)
    return Decision(mask=mask, verdict=verdict, dice=dice, outside=outside, residual=residual)


def _check_agreement(pair: MaskPair, proposed: BoolArray, dice: float) -> None:
    """Refuse masks that do not show the same face.

    Raises:
        SegmentersDisagree: they do not.
    """
    if not proposed.any():
        _disagree("the network finds no face where the geometric rules find one")
    # the reach is used here, because a double chin may go on below the zone
    out_of_reach = 1 - _share(proposed & pair.reach, proposed)
    if out_of_reach > MOST_OUT_OF_REACH:
        _disagree(
            f"{out_of_reach:.0%} of the network's mask is where no face can be; "
            f"at most {MOST_OUT_OF_REACH:.0%} is allowed"
        )
    if dice < LEAST_DICE:
        _disagree(
            f"network and geometric rules find different places (Dice {dice:.2f}); "
            f"at least {LEAST_DICE:.2f} is required"
        )


def _mended_part(mask: BoolArray, gaps: BoolArray, pair: MaskPair) -> BoolArray:
    """Return the geometric mask in and around gaps (z, x)."""
    beside = ndimage.binary_dilation(mask.any(axis=1) & ~gaps, iterations=ABOVE_MASK)
    wide = ndimage.binary_dilation(gaps & (pair.core | beside), iterations=AROUND_GAP)
    part: BoolArray = (
        pair.geometric & wide[:, None, :] & (_depth_behind_skin(pair.body) <= pair.depth)
    )
    return part


def _remaining_skin(mask: BoolArray, pair: MaskPair) -> BoolArray:
    """Return the rays (z, x) that still meet facial skin.

    They end in soft tissue less than `depth` voxels behind the old skin.
    """
    kept = pair.body & ~mask
    skin, meets = pair.body.argmax(axis=1), kept.argmax(axis=1)
    on_bone = np.take_along_axis(pair.bone, meets[:, None, :], axis=1)[:, 0]
    met: BoolArray = pair.front & kept.any(axis=1) & (meets - skin < pair.depth) & ~on_bone
    return met


def _outermost_voxels(mask: BoolArray, pair: MaskPair) -> BoolArray:
    """Return the outermost voxels of rays that meet the mask.

    Coarse voxels of skin and bone look like skin.
    """
    behind = _depth_behind_skin(pair.body)
    rays = pair.front & (mask & pair.body).any(axis=1)
    outermost: BoolArray = rays[:, None, :] & (behind >= 0) & (behind < pair.bare) & pair.zone
    return outermost


def _film_on_bone(mask: BoolArray, pair: MaskPair) -> BoolArray:
    """Return the one-voxel layer of soft tissue left on bone.

    To a network it is half bone. To a viewer it still shows facial relief.
    """
    between = morphology.grown(mask, 1) & morphology.grown(pair.bone, 1)
    film: BoolArray = between & pair.zone & pair.body & ~pair.bone
    return film


def _depth_behind_skin(body: BoolArray) -> NDArray[np.intp]:
    """Return each voxel's distance behind the skin, in voxels.

    Voxels before the body have negative values.
    """
    depth: NDArray[np.intp] = (
        np.arange(body.shape[1])[None, :, None] - body.argmax(axis=1)[:, None, :]
    )
    return depth


def _dice(one: BoolArray, other: BoolArray) -> float:
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else 1.0


def _share(part: BoolArray, whole: BoolArray) -> float:
    count = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / count if count else 1.0


def _disagree(found: str) -> None:
    raise SegmentersDisagree(
        f"{found}. Look at the series; `ctdeface replay --segmenter geometric` lets a service try "
        "its case again with the geometric rules alone"
    )
