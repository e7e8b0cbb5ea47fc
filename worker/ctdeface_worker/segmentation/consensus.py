"""A network proposes a face mask, geometry disposes: the rule for what becomes of the two. Docs: docs/decisions/0010.

Pure: masks in, a decision out. The gate knows nothing of it and looks at the written output all the same.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import ndimage

from ctdeface_shared.errors import SegmentersDisagree
from ctdeface_worker.domain import BoolArray

LEAST_ALIKE = 0.60
"""Dice of the two masks in the body; less, and one of them is not on the face."""
ALIKE = 0.85
"""From here on they are taken to mean the same face."""
MOST_OUTSIDE = 0.25
"""Share of the network's mask that may lie where geometry allows no removal (brain, bone, neck, arms); more is no slip of the border."""
MOST_LEFT = 0.005
"""Share of the skin of the geometric mask that the network may leave and still be taken by itself."""


class Verdict(StrEnum):
    """What the two masks say about each other."""

    AGREED = "agreed"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinions:
    """What is known about one head on one upright grid; every array is (z, y, x) of the same shape.

    Attributes:
        network: the network's mask.
        geometric: the geometric mask, up to the border in front.
        zone: where removal is safe at all.
        body: the patient.
    """

    network: BoolArray
    geometric: BoolArray
    zone: BoolArray
    body: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is removed, and why that.

    Attributes:
        mask: never outside the safe zone, but for what geometry itself removes.
        verdict: whose mask it is.
        alike: Dice of the two masks in the body, the network's within the safe zone.
        outside: share of the network's mask that was cut off.
        left: share of the skin of the geometric mask that the network alone would have left.
    """

    mask: BoolArray
    verdict: Verdict
    alike: float
    outside: float
    left: float


def decide(opinions: Opinions) -> Decision:
    """Take the network's mask within the safe zone where the two agree, both together where they differ, and refuse where they contradict.

    In front of the skin, in the air, the geometric mask is taken in any case: what lies there goes up to the image border.

    Raises:
        SegmentersDisagree: the two do not mean the same face.
    """
    proposed = opinions.network & opinions.body
    allowed, reference = proposed & opinions.zone, opinions.geometric & opinions.body
    alike = _dice(allowed, reference)
    outside = 1 - _share(allowed, proposed)
    skin = reference & ~ndimage.binary_erosion(opinions.body, border_value=1)
    left = 1 - _share(skin & allowed, skin)
    if not proposed.any():
        _disagree("the network finds no face where the geometric rules find one")
    if outside > MOST_OUTSIDE:
        _disagree(f"{outside:.0%} of what the network takes for the face lies where no face can be")
    if alike < LEAST_ALIKE:
        _disagree(f"the network and the geometric rules mean different places (overlap {alike:.2f})")
    agreed = left <= MOST_LEFT and alike >= ALIKE
    network = (opinions.network & opinions.zone) | (opinions.geometric & ~opinions.body)
    return Decision(
        mask=network if agreed else network | opinions.geometric,
        verdict=Verdict.AGREED if agreed else Verdict.REPAIRED,
        alike=alike,
        outside=outside,
        left=left,
    )


def _dice(one: BoolArray, other: BoolArray) -> float:
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else 1.0


def _share(part: BoolArray, whole: BoolArray) -> float:
    count = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / count if count else 1.0


def _disagree(why: str) -> None:
    message = f"{why}: it is not certain where the face is. Look at the case, or try it with the segmenter geometric alone"
    raise SegmentersDisagree(message)
