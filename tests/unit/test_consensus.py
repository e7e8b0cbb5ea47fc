"""A network's mask is used, mended, joined with the geometric mask, or refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared.errors import SegmentersDisagree
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.segmentation.consensus import MaskPair, Verdict, decide

SHAPE = (20, 40, 40)


def box(z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> BoolArray:
    """A box of voxels."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def usual() -> MaskPair:
    """Return a body from row 10 on, with six rows of face in both masks."""
    core = np.zeros((SHAPE[0], SHAPE[2]), dtype=bool)
    core[5:15, 12:28] = True
    return MaskPair(
        network=box((4, 16), (8, 16), (10, 30)),
        geometric=box((4, 16), (0, 16), (10, 30)),
        zone=box((2, 18), (0, 20), (6, 34)),
        reach=box((0, 20), (0, 20), (6, 34)),
        body=box((0, 20), (10, 36), (4, 36)),
        bone=box((0, 20), (20, 36), (4, 36)),
        front=core,
        core=core,
        depth=3,
        bare=1,
    )


def test_where_both_agree_the_mask_is_the_network_s_and_in_front_the_geometric_one_s() -> None:
    """In the body it equals the network's; the air before it is removed up to the border."""
    given_ = usual()
    network = given_.network.copy()
    network[4, 15, 10:30] = False
    decision = decide(replace(given_, network=network))
    assert decision.verdict is Verdict.AGREED
    assert (decision.mask & given_.body == network & given_.body).all()
    assert decision.mask[4:16, 0:10, 10:30].all()


def test_only_a_gap_in_the_middle_of_the_face_is_mended_with_the_geometric_mask() -> None:
    """A missed nostril is removed to the depth of skin; beside it the network's mask stays."""
    given_ = usual()
    network = given_.network & ~box((4, 16), (15, 16), (10, 30)) & ~box((9, 10), (8, 16), (20, 22))
    decision = decide(replace(given_, network=network))
    assert decision.verdict is Verdict.MENDED
    assert decision.mask[9, 10:14, 20:22].all()
    assert (decision.mask & given_.body)[:, :, 10:17].sum() == (network & given_.body)[
        :, :, 10:17
    ].sum()
    assert decision.residual == pytest.approx(2 / 160)


def test_skin_that_is_left_on_the_forehead_is_mended_and_not_held_against_the_network() -> None:
    """The upper end of a face is not well defined; below that of geometry no skin stays."""
    given_ = usual()
    front = given_.core.copy()
    front[15:16, 12:28] = True
    network = given_.network & ~box((15, 16), (8, 16), (10, 30))
    decision = decide(replace(given_, network=network, front=front))
    assert (decision.verdict, decision.residual) == (Verdict.AGREED, 0.0)
    assert decision.mask[15, 10:14, 12:28].all()
    assert not decide(replace(given_, network=network)).mask[15, 10:16, 12:28].any()


def test_high_on_the_forehead_gaps_are_mended_only_near_the_network_s_mask() -> None:
    """Geometry may mark the whole vault as forehead; the network's mask is not extended so far."""
    given_ = usual()
    core, front = np.zeros((2, SHAPE[0], SHAPE[2]), dtype=bool)
    core[5:10, 12:28] = front[5:20, 12:28] = True
    geometric = box((2, 11), (0, 16), (10, 30)) | box((11, 20), (0, 16), (18, 22))
    high = replace(
        given_,
        network=box((2, 11), (8, 16), (10, 30)),
        geometric=geometric,
        zone=given_.reach,
        core=core,
        front=front,
    )
    decision = decide(high)
    assert decision.verdict is Verdict.AGREED
    assert decision.mask[11:16, 10:14, 19:21].all()
    assert not (decision.mask & given_.body)[18:].any()


def test_where_voxels_are_coarse_the_outermost_ones_go_even_when_they_hold_bone() -> None:
    """A voxel of 4 mm with skin and bone looks like skin; beside the face bone stays."""
    given_ = replace(
        usual(), bone=box((0, 20), (11, 36), (4, 36)), network=box((4, 16), (8, 11), (10, 30))
    )
    thin = replace(given_, geometric=box((4, 16), (0, 11), (10, 30)))
    assert not decide(thin).mask[9, 11:, 20].any()
    coarse = decide(replace(thin, bare=2)).mask
    assert coarse[5:15, 11, 12:28].all()
    assert not coarse[:, 12:].any()
    assert not coarse[:, 11, 6:12].any()


def test_a_ray_that_ends_on_bone_is_no_gap() -> None:
    """Where skin is on bone the network need not go deeper."""
    given_ = usual()
    network = given_.network & ~box((9, 10), (12, 16), (20, 22))
    bone = given_.bone | box((9, 10), (12, 20), (20, 22))
    assert decide(replace(given_, network=network)).verdict is Verdict.MENDED
    assert decide(replace(given_, network=network, bone=bone)).verdict is Verdict.AGREED


def test_a_film_of_flesh_on_bone_is_removed_and_flesh_without_bone_stays() -> None:
    """A network cannot separate flesh and bone within one voxel; two voxels are its decision."""
    given_ = usual()
    network = given_.network & ~box((4, 16), (15, 16), (10, 30))
    bone = given_.bone | box((4, 16), (16, 20), (10, 20))
    decision = decide(replace(given_, network=network, bone=bone))
    assert decision.verdict is Verdict.AGREED
    assert decision.mask[4:16, 15, 10:20].all()
    assert not decision.mask[4:16, 15, 21:30].any()
    thicker = given_.bone | box((4, 16), (17, 20), (10, 20))
    assert not decide(replace(given_, network=network, bone=thicker)).mask[4:16, 15, 10:20].any()


def test_beside_the_middle_of_the_face_the_network_says_where_it_ends() -> None:
    """The geometric mask goes on to the ears; what it takes there is not put back."""
    given_ = usual()
    network = given_.network & ~box((4, 16), (8, 16), (10, 12)) & ~box((4, 16), (8, 16), (28, 30))
    decision = decide(replace(given_, network=network))
    assert decision.verdict is Verdict.AGREED
    assert (decision.mask & given_.body == network & given_.body).all()


def test_a_network_that_leaves_much_of_the_skin_is_joined_with_the_geometric_mask() -> None:
    """With a missed chin both masks are removed completely."""
    given_ = usual()
    network = given_.network | box((4, 16), (16, 18), (12, 28))
    network[4:7] = False
    decision = decide(replace(given_, network=network))
    assert decision.verdict is Verdict.REPAIRED
    assert (decision.mask == (network | given_.geometric)).all()
    assert decision.residual == pytest.approx(0.2)


def test_a_network_that_goes_deeper_everywhere_is_taken_only_within_the_safe_zone() -> None:
    """What it marks behind the zone stays."""
    given_ = usual()
    decision = decide(replace(given_, network=box((4, 16), (8, 21), (10, 30))))
    assert not (decision.mask & ~given_.zone).any()
    assert decision.outside == pytest.approx(1 / 11)


def test_what_a_network_marks_below_the_zone_is_no_contradiction_and_goes_as_far_as_is_safe() -> (
    None
):
    """With a third below the chin, both masks are removed as far as the reach allows."""
    given_ = replace(
        usual(), zone=box((6, 18), (0, 20), (6, 34)), geometric=box((6, 16), (0, 16), (10, 30))
    )
    decision = decide(replace(given_, network=box((1, 16), (8, 16), (10, 30))))
    assert decision.verdict is Verdict.REPAIRED
    assert decision.outside == pytest.approx(1 / 3)
    assert decision.mask[1:16, 10:16, 10:30].all()


def test_cloth_before_skin_that_goes_below_the_zone_goes_with_it() -> None:
    """A cloth on chin and neck would keep their shape, though a network does not mark it."""
    cloth = box((0, 4), (4, 6), (10, 30))
    given_ = replace(usual(), zone=box((4, 18), (0, 20), (6, 34)))
    given_ = replace(given_, body=given_.body | cloth, network=box((3, 16), (8, 16), (10, 30)))
    decision = decide(given_)
    assert decision.verdict is Verdict.AGREED
    assert decision.mask[3, 0:16, 10:30].all()
    assert not decision.mask[:3].any()


def test_no_face_is_removed_from_behind() -> None:
    """Skin is removed if the network marks tissue behind it, and stays otherwise."""
    given_ = usual()
    network = given_.network & ~box((4, 16), (8, 12), (28, 30)) & ~box((4, 16), (8, 16), (10, 12))
    mask = decide(replace(given_, network=network)).mask
    assert mask[4:16, 10:12, 28:30].all()
    assert not mask[4:16, 10:16, 10:12].any()


def test_a_network_of_which_much_lies_outside_the_zone_is_joined_with_the_geometric_mask() -> None:
    """As when it is moved: what sticks out on one side is missing on the other."""
    given_ = replace(usual(), zone=box((2, 18), (0, 20), (6, 32)))
    core = given_.core.copy()
    core[:, :14] = False
    decision = decide(
        replace(given_, network=box((4, 16), (8, 16), (14, 36)), core=core, front=core)
    )
    assert decision.verdict is Verdict.REPAIRED
    assert decision.outside == pytest.approx(4 / 22)
    assert decision.residual == 0


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
def test_no_mask_ever_leaves_the_safe_reach_or_spares_skin_in_the_middle_of_the_face(
    seed: int, noise: float
) -> None:
    """For any network, the mask is within its limits and no ray meets facial skin."""
    given_ = usual()
    chance = np.random.default_rng(seed)
    network = given_.network ^ (chance.random(SHAPE) < noise * chance.random())
    try:
        decision = decide(replace(given_, network=network))
    except SegmentersDisagree:
        return
    assert not (decision.mask & ~(given_.reach | given_.geometric)).any()
    kept = given_.body & ~decision.mask
    skin, meets = given_.body.argmax(axis=1), kept.argmax(axis=1)
    assert (meets - skin)[given_.core].min() >= given_.depth
