"""A network proposes a face mask, geometry disposes: the rule for what becomes of the two. Docs: docs/decisions/0010.

Pure: masks in, a decision out. The gate knows nothing of it and looks at the written output all the
    same.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_shared.errors import SegmentersDisagree
from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.domain import BoolArray

LEAST_ALIKE = 0.60
"""Dice of the two masks in the body; less, and one of them is not on the face."""
ALIKE = 0.70
"""From here on they are taken to mean the same face. Not more: to the side of the eyes the geometric mask goes farther back than a face."""
MOST_OUTSIDE = 0.25
"""Share of the network's mask that may lie beyond the reach (brain, bone, arms, the back of the neck); more is no slip of the border."""
SURE_OUTSIDE = 0.08
"""Beyond the zone; more, and the network is not relied on anywhere: a mask 15 mm too high, low, far back or aside has 18 % there."""
MOST_LEFT = 0.005
"""Share of the front of the face whose skin a network may leave and still be taken as it is."""
MOST_MENDED = 0.10
"""So much may be mended ray by ray; a network that leaves more is not relied on anywhere."""
AROUND_GAP = 2
"""Voxels: what is mended is so much wider than the gap, and one deeper than it must be: half of one is lost on the way to the scan's."""
ABOVE_MASK = 5
"""Voxels: on the upper forehead gaps are mended so far from the network's mask."""


class Verdict(StrEnum):
    """What the two masks say about each other."""

    AGREED = "agreed"
    MENDED = "mended"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPair:
    """What is known about one head on one upright grid; every array but `front` and `core` is (z, y, x) of the same shape.

    Attributes:
        network: the network's mask.
        geometric: the geometric mask, up to the border in front.
        zone: where removal is safe, in the slices of the face by geometry.
        reach: the same in every slice.
        body: the patient.
        bone: of the body.
        front: rays (z, x) from the front that meet the middle of the face, from mid-forehead to the
            chin.
        core: those of them that meet it below mid-forehead; by these a network is judged.
        depth: voxels that the skin must lose along such a ray unless bone comes first.
        bare: voxels that it must lose even then.
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
    """What is removed, and why that.

    Attributes:
        mask: never outside the reach, but for what geometry itself removes.
        verdict: whose mask it is.
        alike: Dice of the two masks in the body, the network's within the safe zone.
        outside: share of the network's mask that lies outside the zone.
        left: share of the rays to the middle of the face that would still meet skin behind the
            network's mask.
    """

    mask: BoolArray
    verdict: Verdict
    alike: float
    outside: float
    left: float


def decide(opinions: MaskPair) -> Decision:
    """Take the network's mask within the safe zone where the two agree, mend or join them where they differ, refuse where they contradict.

    In front of the skin, in the air, the geometric mask is taken in any case: what lies there goes
        up to the image border. What lies before
    the network's mask goes as far as is safe.

    Raises:
        SegmentersDisagree: the two do not mean the same face.
    """
    proposed = opinions.network & opinions.body
    allowed = proposed & opinions.zone
    alike = _dice(allowed, opinions.geometric & opinions.body)
    outside = 1 - _share(allowed, proposed)
    if not proposed.any():
        _disagree("the network finds no face where the geometric rules find one")
    astray = 1 - _share(
        proposed & opinions.reach, proposed
    )  # a double chin may go on below the zone
    if astray > MOST_OUTSIDE:
        _disagree(f"{astray:.0%} of what the network takes for the face lies where no face can be")
    if alike < LEAST_ALIKE:
        _disagree(
            f"the network and the geometric rules mean different places (overlap {alike:.2f})"
        )
    mask = (opinions.network & opinions.zone) | (opinions.geometric & ~opinions.body)
    gaps = _still_met(mask, opinions)
    left = _share(gaps & opinions.core, opinions.core & opinions.body.any(axis=1))
    verdict = Verdict.AGREED if left <= MOST_LEFT else Verdict.MENDED
    if alike < ALIKE or outside > SURE_OUTSIDE or left > MOST_MENDED:
        verdict, mask = Verdict.REPAIRED, mask | opinions.geometric
    elif gaps.any():
        beside = ndimage.binary_dilation(mask.any(axis=1) & ~gaps, iterations=ABOVE_MASK)
        wide = ndimage.binary_dilation(gaps & (opinions.core | beside), iterations=AROUND_GAP)
        mask |= (
            opinions.geometric & wide[:, None, :] & (_behind_skin(opinions.body) <= opinions.depth)
        )
    marked = (
        opinions.network & opinions.reach
    )  # a head that leans has more face above or below the zone
    before = (
        morphology.before(marked) & opinions.reach
    )  # cloth before skin that goes would keep its shape
    mask = mask | _film(mask, opinions) | marked | before
    mask |= _bare(mask, opinions)
    return Decision(mask=mask, verdict=verdict, alike=alike, outside=outside, left=left)


def _still_met(mask: BoolArray, opinions: MaskPair) -> BoolArray:
    """Return the rays (z, x) to the middle of the face that meet soft tissue hardly behind the old skin."""
    kept = opinions.body & ~mask
    skin, meets = opinions.body.argmax(axis=1), kept.argmax(axis=1)
    on_bone = np.take_along_axis(opinions.bone, meets[:, None, :], axis=1)[:, 0]
    met: BoolArray = opinions.front & kept.any(axis=1) & (meets - skin < opinions.depth) & ~on_bone
    return met


def _bare(mask: BoolArray, opinions: MaskPair) -> BoolArray:
    """Return the outermost voxels of rays to the middle of the face that meet a mask: coarse ones of skin and bone look like skin."""
    behind = _behind_skin(opinions.body)
    rays = opinions.front & (mask & opinions.body).any(axis=1)
    bare: BoolArray = rays[:, None, :] & (behind >= 0) & (behind < opinions.bare) & opinions.zone
    return bare


def _film(mask: BoolArray, opinions: MaskPair) -> BoolArray:
    """Return the soft tissue, one voxel thick, that a mask leaves on bone: half bone to a network, a face's relief to an eye."""
    between = morphology.grown(mask, 1) & morphology.grown(opinions.bone, 1)
    film: BoolArray = between & opinions.zone & opinions.body & ~opinions.bone
    return film


def _behind_skin(body: BoolArray) -> NDArray[np.intp]:
    """How many voxels each lies behind the first of the body that a look from the front meets; less than 0 before it."""
    behind: NDArray[np.intp] = (
        np.arange(body.shape[1])[None, :, None] - body.argmax(axis=1)[:, None, :]
    )
    return behind


def _dice(one: BoolArray, other: BoolArray) -> float:
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else 1.0


def _share(part: BoolArray, whole: BoolArray) -> float:
    count = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / count if count else 1.0


def _disagree(why: str) -> None:
    raise SegmentersDisagree(
        f"{why}: it is not certain where the face is. Look at the case, or try it with the segmenter geometric alone"
    )
