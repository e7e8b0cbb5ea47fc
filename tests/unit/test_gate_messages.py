"""The sentence of every check names what was found and what is required, and a failed one where."""

from dataclasses import replace

import numpy as np
import pytest

from ctdeface_shared.errors import VerificationFailed
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.pipeline.verify import Verification
from ctdeface_worker.verification.border import check_upper_border
from ctdeface_worker.verification.check import Check, at_least, at_most, fine_percent, percent
from ctdeface_worker.verification.gate import verify_volume
from ctdeface_worker.verification.location import place_of_points
from ctdeface_worker.verification.mask import ExaminedHead, check_mask
from ctdeface_worker.verification.skin import FrontSurface, RayResult
from ctdeface_worker.verification.skin_checks import check_skin
from tests.support.cases import small_head

RAYS = (60, 60)
SHAPE = (60, 90, 60)
NONE: BoolArray = np.zeros(RAYS, dtype=bool)
ALL: BoolArray = np.ones(RAYS, dtype=bool)
MM: FloatArray = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
GEOMETRY = Geometry.from_affine(SHAPE, MM)


def half(*, left: bool) -> BoolArray:
    """The rays to one half of the face."""
    columns = np.arange(RAYS[1]) >= RAYS[1] / 2
    return np.broadcast_to(columns if left else ~columns, RAYS).copy()


FRONT = FrontSurface(
    within=(np.zeros(3), np.array([60.0, 90.0, 60.0])),
    origin_lps=np.zeros(3),
    geometry=GEOMETRY,
    mm=1.0,
    deeper_mm=3.0,
    skin=np.full(RAYS, 10),
    counted=ALL,
    bright=NONE,
    bone_behind=ALL,
    bone=np.full(RAYS, 20),
    has_bone=ALL,
    foremost=half(left=True),
    front_share=1.0,
    behind_air=np.zeros(SHAPE, dtype=bool),
)
PROVEN = RayResult(
    front=FRONT,
    removed=ALL,
    ends_on_bone=ALL,
    ends_in_layer=NONE,
    ends_behind_air=NONE,
    ends_above_nose_base=NONE,
)
FEW_RAYS = np.pad(np.ones((10, 10), dtype=bool), ((0, 50), (0, 50)))
FAULTS: dict[str, tuple[RayResult, str]] = {
    "facial_skin_found": (
        replace(PROVEN, front=replace(FRONT, counted=FEW_RAYS)),
        "100 rays from the front meet facial skin in the input; at least 150 rays are required",
    ),
    "facial_skin_removed": (
        replace(PROVEN, removed=half(left=False)),
        (
            "50.00 % of the facial skin in view is gone; at least 98.50 % is required "
            "(remaining: slices 4 to 57 of 60, z 3 to 56 mm, on the patient's left)"
        ),
    ),
    "every_part_of_the_face_removed": (
        replace(PROVEN, removed=half(left=False)),
        (
            "0.00 % of the facial skin is gone in its weakest part, the left half; "
            "at least 95.00 % is required (remaining: slices 4 to 57 of 60, z 3 to 56 mm, "
            "on the patient's left)"
        ),
    ),
    "face_not_peeled": (
        replace(PROVEN, ends_in_layer=half(left=True)),
        (
            "100.0 % of the rays in the worst square of 3 cm end in flesh less than 10 mm behind "
            "the skin; at most 40.0 % is allowed ("
        ),
    ),
    "no_strips_left": (
        replace(PROVEN, ends_in_layer=half(left=True)),
        (
            "50.0 % of all rays to facial skin end in flesh less than 10 mm behind the skin; "
            "at most 20.0 % is allowed ("
        ),
    ),
    "no_skin_left_behind_a_cover": (
        replace(PROVEN, ends_behind_air=half(left=True)),
        "as a face behind a cloth has; at most 60.0 % is allowed (",
    ),
    "foremost_part_removed": (
        replace(PROVEN, ends_above_nose_base=ALL),
        (
            "100.0 % of the rays to the foremost part of the face end in flesh less than 16 mm "
            "behind it; at most 40.0 % is allowed ("
        ),
    ),
    "face_seen": (
        replace(PROVEN, front=replace(FRONT, front_share=0.3)),
        (
            "30.0 % of the head's surface in view is within 60 mm behind its foremost part; "
            "at least 50.0 % is required"
        ),
    ),
    "skin_not_bright": (
        replace(PROVEN, front=replace(FRONT, counted=half(left=True), bright=half(left=False))),
        (
            "50.0 % of the rays meet bone or metal first and are not counted; "
            "at most 15.0 % is allowed ("
        ),
    ),
    "facial_bone_found": (
        replace(PROVEN, front=replace(FRONT, bone_behind=NONE)),
        (
            "0.0 % of the facial skin in view has bone within 25 mm behind it; "
            "at least 10.0 % is required"
        ),
    ),
    "facial_bone_uncovered": (
        replace(PROVEN, ends_on_bone=half(left=False)),
        (
            "50.0 % of the rays to skin with bone behind it now end on that bone; "
            "at least 62.0 % is required (elsewhere: slices 4 to 57 of 60, z 3 to 56 mm, "
            "on the patient's left)"
        ),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_failed_check_of_the_rays_names_figure_bound_and_place(name: str) -> None:
    """One fault per check, made by hand."""
    result, sentence = FAULTS[name]
    check = found(name, check_skin(result, bone_stays=True))
    assert not check.passed
    assert sentence in check.message
    assert check.bound is not None


def test_a_passed_check_names_figure_and_bound_without_a_place() -> None:
    """A reader of the report sees how far each figure is from its bound."""
    checks = check_skin(PROVEN, bone_stays=True)
    assert {check.name for check in checks} == set(FAULTS)
    assert all(check.passed for check in checks)
    message = found("facial_skin_removed", checks).message
    assert message == ("100.00 % of the facial skin in view is gone; at least 98.50 % is required")
    assert all("(" not in check.message for check in checks)


def test_a_refusal_names_every_failed_check_in_a_sentence_of_its_own() -> None:
    """The reason of a refused series is the sentences of its failed checks."""
    volume = small_head().volume
    checks = check_skin(replace(PROVEN, removed=half(left=False)), bone_stays=True)
    with pytest.raises(VerificationFailed) as refusal:
        Verification(checks=checks, after=volume, written=()).raise_unless_passed()
    assert str(refusal.value) == ". ".join(check.message for check in checks if not check.passed)
    assert str(refusal.value).startswith("50.00 % of the facial skin in view is gone; at least 98")


def found(name: str, checks: tuple[Check, ...]) -> Check:
    """The check of a name."""
    return next(check for check in checks if check.name == name)


def head(tissue: BoolArray, bone: BoolArray) -> ExaminedHead:
    """A head whose cavity is at the back."""
    hu = np.where(bone, np.float32(900), np.where(tissue, np.float32(40), np.float32(-1000)))
    canonical = Canonical(
        hu=hu, valid=np.ones(SHAPE, dtype=bool), origin_lps=np.zeros(3), spacing_mm=1.0
    )
    cavity = np.zeros(SHAPE, dtype=bool)
    cavity[20:40, 70:, 10:50] = True
    return ExaminedHead(canonical=canonical, cavity=cavity, geometry=GEOMETRY)


def box(z: slice, y: slice, x: slice) -> BoolArray:
    """A mask of one block."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[z, y, x] = True
    return mask


WHOLE = slice(None)


@pytest.mark.parametrize(
    ("name", "face", "bone", "sentence"),
    [
        (
            "mask_size",
            box(slice(0, 10), slice(0, 10), slice(0, 10)),
            NONE,
            "the mask removes 1.0 ml of tissue; 15 to 1600 ml are required",
        ),
        (
            "bone_stays",
            box(WHOLE, slice(0, 10), WHOLE),
            box(slice(0, 30), slice(0, 10), slice(30, 60)),
            (
                "25.0 % of the removed tissue is bone or metal; at most 12.0 % is allowed "
                "(slices 2 to 29 of 60, z 1 to 28 mm, on the patient's left)"
            ),
        ),
        (
            "mask_is_anterior",
            box(WHOLE, slice(80, 90), WHOLE),
            NONE,
            (
                "the middle of the mask is 5.0 mm behind the middle of the brain; "
                "more than 0 mm in front is required"
            ),
        ),
        (
            "mask_is_one_piece",
            box(WHOLE, slice(0, 10), slice(0, 20)) | box(WHOLE, slice(0, 10), slice(30, 60)),
            NONE,
            (
                "40.0 % of the mask's tissue is not connected with the rest, directly or through "
                "removed air; at most 10.0 % is allowed (slices 4 to 57 of 60, z 3 to 56 mm, "
                "on the patient's right)"
            ),
        ),
    ],
)
def test_a_failed_check_of_the_mask_names_figure_bound_and_place(
    name: str, face: BoolArray, bone: BoolArray, sentence: str
) -> None:
    """Masks of tissue that fills the grid."""
    tissue = np.ones(SHAPE, dtype=bool)
    bones = bone if bone.ndim == 3 else np.zeros(SHAPE, dtype=bool)
    check = found(name, check_mask(head(tissue, bones), face, bone_stays=True))
    assert not check.passed
    assert check.message == sentence


def test_a_profile_without_a_limit_for_bone_says_so() -> None:
    """The profile bulky removes the facial skeleton."""
    face = box(WHOLE, slice(0, 10), WHOLE)
    check = found("bone_stays", check_mask(head(face, face), face, bone_stays=False))
    assert check.passed
    assert check.message == (
        "100.0 % of the removed tissue is bone or metal; the profile has no limit"
    )


def test_a_mask_that_ends_below_the_brow_names_side_and_bound() -> None:
    """No bone is behind the skin above it."""
    skin = box(WHOLE, slice(5, 30), WHOLE)
    canonical = replace(head(skin, NONE[:, None, :] & skin).canonical, spacing_mm=2.0)
    check = check_upper_border(canonical, box(slice(0, 20), slice(5, 15), WHOLE))
    assert check is not None
    assert not check.passed
    assert "on the patient's right, 100.0 % of the rays meet skin without bone" in check.message
    assert check.message.endswith("; at most 20.0 % is allowed")


def test_the_gate_names_what_its_output_must_not_have_changed() -> None:
    """A voxel outside the mask, a bright fill, and brain in the mask, on a synthetic head."""
    phantom = small_head()
    before, geometry = phantom.volume, phantom.volume.geometry
    face = phantom.face | phantom.brain
    hu = np.where(face & before.valid, np.float32(50), before.hu)
    row = int(np.flatnonzero(~face[3].any(axis=1))[0])
    hu[3, row, 5] += 1
    after = Volume(hu=hu, valid=before.valid, geometry=geometry)
    checks = verify_volume(before, after, face, profile=Profile.SOFT_TISSUE)
    unchanged = found("nothing_else_changed", checks)
    assert unchanged.message.startswith("1 voxels outside the mask differ; 0 are allowed (slice 4 ")
    assert found("fill_is_air", checks).message == (
        "the brightest removed voxel has 50 HU; at most -800 HU is required"
    )
    brain = found("brain_untouched", checks)
    assert not brain.passed
    assert "voxels of the intracranial cavity are in the mask; 0 are allowed (" in brain.message


def test_the_gate_names_what_it_needs_to_see() -> None:
    """Without a mask, with an output of another shape, and without a skull in view."""
    air: HuArray = np.full(SHAPE, -1000, dtype=np.float32)
    volume = Volume(hu=air, valid=np.ones(SHAPE, dtype=bool), geometry=GEOMETRY)
    empty = np.zeros(SHAPE, dtype=bool)
    checks = verify_volume(volume, volume, empty, profile=Profile.SOFT_TISSUE)
    assert found("mask_size", checks).message == (
        "the mask is empty; 15 to 1600 ml of removed tissue are required"
    )
    assert found("fill_is_air", checks).passed
    checks = verify_volume(volume, volume, ~empty, profile=Profile.SOFT_TISSUE)
    assert found("cavity_found", checks).message == (
        "0 ml of the intracranial cavity are in view; at least 40 ml is required"
    )
    short = Volume(
        hu=air[1:], valid=volume.valid[1:], geometry=Geometry.from_affine((59, 90, 60), MM)
    )
    checks = verify_volume(volume, short, ~empty, profile=Profile.SOFT_TISSUE)
    assert not any(check.passed for check in checks)
    assert all("the output has the shape (59, 90, 60)" in check.message for check in checks)
    assert "at most -800 HU" in found("fill_is_air", checks).message
    assert "0 voxels outside the mask may differ" in found("nothing_else_changed", checks).message


def test_a_figure_that_rounds_to_its_bound_still_reads_as_a_failure() -> None:
    """98.499 % is not at least 98.50 %, and 15.01 % not at most 15.0 %."""
    low = at_least("a", 0.984999, 0.985, fine_percent, "{} is gone")
    assert low.message == "just under 98.50 % is gone; at least 98.50 % is required"
    high = at_most("a", 0.1501, 0.15, percent, "{} is bright")
    assert high.message == "just over 15.0 % is bright; at most 15.0 % is allowed"


def test_a_place_is_named_in_slices_millimeters_and_sides() -> None:
    """One point, points on both sides, and none."""
    one = np.array([[50.0, 0.0, 7.0]])
    assert place_of_points(one, GEOMETRY, 30.0) == "slice 8 of 60, z 7 mm, on the patient's left"
    both = np.array([[10.0, 0.0, 7.0], [50.0, 0.0, 9.0]])
    assert place_of_points(both, GEOMETRY, 30.0).endswith("on both sides")
    assert place_of_points(one[:0], GEOMETRY, 30.0) == "place unknown"
