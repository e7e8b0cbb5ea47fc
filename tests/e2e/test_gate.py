"""What the gate finds by its own means, held against the truth of the synthetic head; and axes that the tags exchange."""

from itertools import permutations

import numpy as np
import pytest

from ctdeface_shared.errors import FaceNotFound, UntrustedGeometry
from ctdeface_shared.options import Profile
from ctdeface_worker.canonical import mask_to_stored, to_canonical
from ctdeface_worker.domain import Geometry, Volume
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.verification.cavity import find_cavity
from ctdeface_worker.verification.gate import verify_volume
from tests.cases import small_head
from tests.trial import defaced

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


@pytest.mark.parametrize("order", SWAPPED, ids=["".join("xyz"[axis] for axis in order) for order in SWAPPED])
def test_a_head_whose_tags_swap_axes_is_never_defaced_at_the_wrong_place(order: tuple[int, int, int]) -> None:
    """Whatever patient axes the tags exchange: either the anatomy contradicts them at once, or the gate refuses what came of it."""
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
    checks = verify_volume(wrong, defaced(wrong, mask), mask.face, profile=Profile.SOFT_TISSUE)
    assert [check.name for check in checks if not check.passed]
