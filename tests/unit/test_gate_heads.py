"""The gate counts wide spaces that bone encloses, on grids made by hand."""

import numpy as np
import pytest

from ctdeface_shared.errors import SeveralHeads, VerificationFailed
from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, Geometry, HuArray
from ctdeface_worker.pipeline.verify import Verification
from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.heads import check_one_skull, find_further_cavity
from tests.support.cases import small_head

SHAPE = (60, 60, 120)
OWN_MM, OTHER_MM = (60.0, 60.0, 60.0), (60.0, 60.0, 180.0)
GEOMETRY = Geometry.from_affine(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]])


def distance_mm(middle_mm: tuple[float, float, float]) -> HuArray:
    """Distance of every voxel (z, y, x) from a point."""
    axes = np.indices(SHAPE).astype(np.float32) * 2
    return np.asarray(np.linalg.norm(axes - np.array(middle_mm)[:, None, None, None], axis=0))


def ball(hu: HuArray, middle_mm: tuple[float, float, float], radius_mm: float) -> BoolArray:
    """Paint a skull 6 mm thick around a brain; returns the brain."""
    distance = distance_mm(middle_mm)
    hu[distance < radius_mm + 6] = 900
    brain = distance < radius_mm
    hu[brain] = 35
    return np.asarray(brain)


def grid(hu: HuArray) -> Canonical:
    """The values on the gate's grid."""
    return Canonical(
        hu=hu, valid=np.ones(SHAPE, dtype=bool), origin_lps=np.zeros(3), spacing_mm=2.0
    )


def air() -> HuArray:
    """An empty field of view."""
    return np.full(SHAPE, -1000, dtype=np.float32)


def test_the_examined_cavity_is_not_a_further_one() -> None:
    """One head in view."""
    hu = air()
    brain = ball(hu, OWN_MM, 48)
    further = find_further_cavity(grid(hu), brain)
    assert further.ml == 0
    assert check_one_skull(further, GEOMETRY).passed


def test_another_closed_skull_is_found_with_its_place() -> None:
    """The sentence names figure, bound and side."""
    hu = air()
    brain = ball(hu, OWN_MM, 48)
    ball(hu, OTHER_MM, 40)
    check = check_one_skull(find_further_cavity(grid(hu), brain), GEOMETRY)
    assert not check.passed
    assert "outside the examined skull" in check.message
    assert "at most 40 ml is allowed (slices" in check.message
    assert "on the patient's left" in check.message


def test_two_skulls_that_share_the_examined_cavity_are_two() -> None:
    """Crown to crown, the pieces of the cavity are above each other."""
    hu = air()
    both = ball(hu, OWN_MM, 48) | ball(hu, OTHER_MM, 48)
    assert find_further_cavity(grid(hu), both).ml > 100


@pytest.mark.parametrize("contents", [-1000, 0, 120], ids=["air", "water", "plastic"])
def test_what_is_in_a_skull_does_not_matter(contents: int) -> None:
    """A phantom may hold anything."""
    hu = air()
    brain = ball(hu, OWN_MM, 48)
    hu[ball(hu, OTHER_MM, 40)] = contents
    assert find_further_cavity(grid(hu), brain).ml > 80


def test_a_narrow_cavity_is_a_sinus() -> None:
    """Its wall is nowhere farther than 20 mm from its middle."""
    hu = air()
    brain = ball(hu, OWN_MM, 48)
    ball(hu, OTHER_MM, 16)
    assert find_further_cavity(grid(hu), brain).ml == 0


def test_a_bowl_is_open_in_two_planes() -> None:
    """Like a head rest, whatever its material."""
    hu = air()
    brain = ball(hu, OWN_MM, 48)
    bowl = ball(hu, OTHER_MM, 40)
    open_part = (np.indices(SHAPE)[1] * 2 < OTHER_MM[1]) & (distance_mm(OTHER_MM) < 50)
    hu[open_part | bowl] = -1000
    assert find_further_cavity(grid(hu), brain).ml == 0


def test_a_skull_that_the_field_of_view_cuts_is_closed_by_the_cut() -> None:
    """Somewhat more than half of it is in view."""
    hu = air()
    brain = ball(hu, OWN_MM, 48)
    ball(hu, (60.0, 60.0, 226.0), 48)
    assert find_further_cavity(grid(hu), brain).ml > 40


@pytest.mark.parametrize(
    ("name", "error"), [("one_skull", SeveralHeads), ("mask_size", VerificationFailed)]
)
def test_a_second_head_has_a_code_of_its_own(name: str, error: type[Exception]) -> None:
    """The message lists every failed check in either case."""
    checks = (Check(name=name, passed=False, message="a"), Check(name="b", passed=False))
    with pytest.raises(error, match=r"a\. b"):
        Verification(checks=checks, after=small_head().volume, written=()).raise_unless_passed()
