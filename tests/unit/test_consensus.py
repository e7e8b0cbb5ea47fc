"""What becomes of a network's mask beside the geometric one: taken, repaired with it, or refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared.errors import SegmentersDisagree
from ctdeface_worker.domain import BoolArray
from ctdeface_worker.segmentation.consensus import Opinions, Verdict, decide

SHAPE = (20, 40, 40)


def box(z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> BoolArray:
    """A box of voxels."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def usual() -> Opinions:
    """A body from row 10 on, whose first six rows are face by both, and may be removed."""
    return Opinions(
        network=box((4, 16), (8, 16), (10, 30)),
        geometric=box((4, 16), (0, 16), (10, 30)),
        zone=box((2, 18), (0, 20), (6, 34)),
        body=box((0, 20), (10, 36), (4, 36)),
    )


def test_where_both_agree_the_mask_is_the_network_s_and_in_front_the_geometric_one_s() -> None:
    """In the body it is the network's to the voxel; the air before it goes up to the border."""
    given_ = usual()
    network = given_.network.copy()
    network[4, 15, 10:30] = False
    decision = decide(replace(given_, network=network))
    assert decision.verdict is Verdict.AGREED
    assert (decision.mask & given_.body == network & given_.body).all()
    assert decision.mask[4:16, 0:10, 10:30].all()


def test_skin_that_the_network_leaves_is_repaired_by_both_masks_together() -> None:
    """A chin that the network missed goes with the geometric mask, and what only the network has goes too."""
    given_ = usual()
    network = given_.network | box((4, 16), (16, 18), (12, 28))
    network[4:7] = False
    decision = decide(replace(given_, network=network))
    assert decision.verdict is Verdict.REPAIRED
    assert (decision.mask == (network | given_.geometric)).all()
    assert decision.left > 0.1


def test_a_network_that_goes_deeper_everywhere_is_taken_only_within_the_safe_zone() -> None:
    """What it marks behind the zone stays."""
    given_ = usual()
    decision = decide(replace(given_, network=box((4, 16), (8, 21), (10, 30))))
    assert not (decision.mask & ~given_.zone).any()
    assert decision.outside == pytest.approx(1 / 11)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (box((0, 1), (0, 1), (0, 1)), "finds no face"),
        (box((4, 16), (18, 36), (10, 30)), "no face can be"),
        (box((4, 16), (8, 36), (10, 30)), "no face can be"),
        (box((14, 18), (10, 16), (10, 30)), "different places"),
        (box((4, 16), (10, 11), (10, 30)), "different places"),
    ],
    ids=["nothing", "behind", "everything", "elsewhere", "thin"],
)
def test_a_network_that_means_something_else_is_refused(network: BoolArray, why: str) -> None:
    """Nothing, the back of the head, all of it, the forehead only, a film: no mask comes out."""
    with pytest.raises(SegmentersDisagree, match=why):
        decide(replace(usual(), network=network))


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.6))
def test_no_mask_ever_leaves_the_safe_zone_or_spares_skin_that_it_may_not(seed: int, noise: float) -> None:
    """Whatever the network says: inside zone or geometric mask, and the skin of the geometric mask goes but for half a percent."""
    given_ = usual()
    chance = np.random.default_rng(seed)
    network = given_.network ^ (chance.random(SHAPE) < noise * chance.random())
    try:
        decision = decide(replace(given_, network=network))
    except SegmentersDisagree:
        return
    assert not (decision.mask & ~(given_.zone | given_.geometric)).any()
    skin = box((4, 16), (10, 11), (10, 30))
    assert (decision.mask & skin).sum() >= 0.995 * skin.sum()
