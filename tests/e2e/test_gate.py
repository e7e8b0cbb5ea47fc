"""The gate's landmarks match the synthetic head, and exchanged axes are refused."""

from itertools import permutations

import numpy as np
import pytest

from ctdeface_shared.errors import FaceNotFound, UntrustedGeometry
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.canonical import mask_to_stored, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FaceMask, Geometry, Volume
from ctdeface_worker.phantom.scenes import scene
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.verification.cavity import find_cavity
from ctdeface_worker.verification.gate import verify_volume
from tests.support.cases import small_head
from tests.support.volume_results import defaced

SWAPPED = [order for order in permutations(range(3)) if order != (0, 1, 2)]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_cavity_is_the_brain_of_the_synthetic_head(seed: int) -> None:
    """Dice with the truth is at least 0.95, and nothing leaks into orbits or behind the cheeks."""
    head = small_head(seed)
    canonical = to_canonical(head.volume)
    cavity = mask_to_stored(find_cavity(canonical), canonical, head.volume.geometry)
    assert 2 * (cavity & head.brain).sum() / (cavity.sum() + head.brain.sum()) >= 0.95
    outside = (cavity & ~head.brain).sum() / cavity.sum()
    assert outside < 0.01


@pytest.mark.parametrize("seed", [424, 428])
def test_the_cavity_holds_nothing_of_the_face_behind_closed_bone(seed: int) -> None:
    """With the fossa behind the cheek in it, the brow was too low and forehead stayed."""
    head = scene(seed, unseen=True)
    canonical = to_canonical(head.volume)
    cavity = mask_to_stored(find_cavity(canonical), canonical, head.volume.geometry)
    assert (cavity & ~head.brain).sum() / cavity.sum() < 0.01


@pytest.mark.parametrize("seed", [5, 199])
def test_the_cavity_is_whole_where_the_field_of_view_cuts_the_head(seed: int) -> None:
    """At the sides and behind, the cut counts as bone."""
    assert cavity_like_brain(seed) >= 0.9


@pytest.mark.parametrize("seed", [135, 170])
def test_the_cavity_is_found_where_the_field_of_view_ends_above_its_floor(seed: int) -> None:
    """A brain without a floor is still a brain: nothing else within bone is as wide."""
    assert cavity_like_brain(seed) >= 0.85


@pytest.mark.parametrize("seed", [131, 152, 200])
def test_a_mask_that_leaves_the_eyes_is_refused_however_the_head_leans(seed: int) -> None:
    """The true mask of a leaning head passes; its lower half does not."""
    head = scene(seed, unseen=True)
    assert not refused(head.volume, head.face)
    levels = np.flatnonzero(head.face.any(axis=(1, 2)))
    half = head.face.copy()
    half[(levels[0] + levels[-1]) // 2 :] = False
    assert refused(head.volume, half)


def cavity_like_brain(seed: int) -> float:
    """Dice of the gate's cavity and the brain in view."""
    head = scene(seed, unseen=True)
    canonical = to_canonical(head.volume)
    cavity = mask_to_stored(find_cavity(canonical), canonical, head.volume.geometry)
    return float(2 * (cavity & head.brain).sum() / (cavity.sum() + head.brain.sum()))


def refused(volume: Volume, face: BoolArray) -> list[str]:
    """Return the names of the checks that a mask fails."""
    mask = FaceMask(face=face, geometry=volume.geometry, orientation="verified")
    checks = verify_volume(volume, defaced(volume, mask), face, profile=Profile.SOFT_TISSUE)
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize(
    "order", SWAPPED, ids=["".join("xyz"[axis] for axis in order) for order in SWAPPED]
)
def test_a_head_whose_tags_swap_axes_is_never_defaced_at_the_wrong_place(
    order: tuple[int, int, int],
) -> None:
    """Either the anatomy contradicts the axes, or the gate refuses the result."""
    volume = small_head().volume
    affine = volume.geometry.affine_lps.copy()
    affine[:3] = affine[list(order)]
    hu, valid = volume.hu, volume.valid
    if np.cross(affine[:3, 2], affine[:3, 1]) @ affine[:3, 0] < 0:  # slices rise along the normal
        affine[:3, 3] += affine[:3, 0] * (hu.shape[0] - 1)
        affine[:3, 0] *= -1
        hu, valid = hu[::-1].copy(), valid[::-1].copy()
    wrong = Volume(hu=hu, valid=valid, geometry=Geometry.from_affine(hu.shape, affine))
    try:
        mask = GeometricSegmenter().segment(wrong)
    except (UntrustedGeometry, FaceNotFound):
        return
    assert refused(wrong, mask.face)
