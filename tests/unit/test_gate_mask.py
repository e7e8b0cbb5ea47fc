"""Whether a mask is one piece."""

import numpy as np

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray, Geometry
from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.mask import ExaminedHead, check_mask

SHAPE = (30, 40, 30)


def pieces(tissue: BoolArray, face: BoolArray) -> Check:
    """Return the gate's check of connectedness for a mask over tissue in air."""
    hu = np.where(tissue, np.float32(40), np.float32(-1000))
    canonical = Canonical(
        hu=hu, valid=np.ones(SHAPE, dtype=bool), origin_lps=np.zeros(3), spacing_mm=2.0
    )
    cavity = np.zeros(SHAPE, dtype=bool)
    cavity[:, 35:] = True
    geometry = Geometry.from_affine(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]])
    head = ExaminedHead(canonical=canonical, cavity=cavity, geometry=geometry)
    return next(
        check
        for check in check_mask(head, face, bone_stays=True)
        if check.name == "mask_is_one_piece"
    )


def slab(first: int, last: int) -> BoolArray:
    """Rows from the front."""
    there = np.zeros(SHAPE, dtype=bool)
    there[:, first:last] = True
    return there


def test_a_cloth_before_the_face_hangs_together_with_it_through_the_air_that_goes_as_well() -> None:
    """Without the air between cloth and skin in the mask, they are two pieces."""
    cloth, skin = slab(5, 7), slab(12, 16)
    assert pieces(cloth | skin, slab(0, 16)).passed
    apart = pieces(cloth | skin, cloth | skin)
    assert (apart.passed, round(apart.figure or 0, 3)) == (False, 0.333)


def test_a_piece_behind_what_stays_is_apart() -> None:
    """Tissue that is left between two parts of a mask separates them."""
    whole = slab(10, 30)
    assert not pieces(whole, slab(0, 16) | slab(24, 30)).passed
    assert pieces(whole, slab(0, 30)).passed
