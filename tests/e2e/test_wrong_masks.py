"""The gate passes right masks and refuses deliberately wrong ones, on real and synthetic heads."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.domain import BoolArray, FaceMask, Volume
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.verification.gate import Examination, check_output, examine_input
from tests.support.cases import small_head
from tests.support.measure.covers import TISSUE_HU, draped, hung, under_cover
from tests.support.measure.heads import HEADS
from tests.support.measure.volumes import load
from tests.support.measure.wrong_masks import coarser, moved_to, wrong_masks
from tests.support.volume_results import defaced

ALL = slice(None)
PARTS = {
    "visible_human_female": (slice(0, None, 2), slice(90, 400, 2), slice(120, 390, 2)),
    "stanford_cthead": (ALL, slice(0, 250, 2), slice(6, 202, 2)),
    "vtk_headsq": (ALL, ALL, ALL),
    "dcm_qa_ct_ge": (ALL, slice(28, None, 4), slice(36, 480, 4)),
}
"""What is kept of each head, so that a trial takes about a second."""
SYNTHETIC = "synthetic head"
SCALP_VOXELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A volume at about 2 mm with its right mask, examined by the gate once for all masks."""

    volume: Volume
    face: BoolArray
    examination: Examination


@pytest.fixture(scope="module")
def heads(real_data: Path) -> dict[str, Head]:
    """All heads, segmented once."""
    volumes = {name: coarser(load(real_data, name), PARTS[name]) for name in HEADS} | {
        SYNTHETIC: small_head().volume
    }
    segmenter = GeometricSegmenter()
    return {
        name: Head(
            volume=volume, face=segmenter.segment(volume).face, examination=examine_input(volume)
        )
        for name, volume in volumes.items()
    }


def failures(head: Head, face: BoolArray) -> list[str]:
    """Names of the checks that do not pass."""
    after = defaced(
        head.volume, FaceMask(face=face, geometry=head.volume.geometry, orientation="verified")
    )
    checks = check_output(head.examination, after, face, profile=Profile.SOFT_TISSUE)
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize("name", [*HEADS, SYNTHETIC])
def test_the_right_mask_passes_and_every_wrong_one_is_refused(
    heads: dict[str, Head], name: str
) -> None:
    """Shifted, mirrored, halved, thin, peeled, empty, everything, another patient's."""
    head = heads[name]
    assert failures(head, head.face) == []
    wrong = dict(wrong_masks(head.volume, head.face))
    for other in set(heads) - {name}:
        wrong[f"mask of {other}"] = moved_to(
            head.volume, head.face, heads[other].volume, heads[other].face
        )
    if name == SYNTHETIC:
        del wrong["mirrored left to right"]  # it is its own mirror image
    assert len(wrong) >= 20
    assert [what for what, face in wrong.items() if not failures(head, face)] == []


@pytest.mark.parametrize(("gap", "thick"), [(0, 1), (0, 2), (0, 3), (2, 1), (2, 2)])
@pytest.mark.parametrize("name", ["stanford_cthead", "vtk_headsq", SYNTHETIC])
def test_a_face_under_a_cloth_goes_with_it_or_the_mask_is_refused(
    heads: dict[str, Head], name: str, gap: int, thick: int
) -> None:
    """The cloth is on the skin or held off it."""
    bare = heads[name]
    volume, right = draped(bare.volume, bare.face, gap=gap, thick=thick)
    head = Head(volume=volume, face=right, examination=examine_input(volume))
    assert failures(head, right) == []
    assert [
        what
        for what, face in under_cover(bare.volume, bare.face, right)
        if not failures(head, face)
    ] == []


@pytest.mark.parametrize("gap", [1, 2, 4])
def test_behind_a_cloth_that_is_joined_to_the_head_nothing_can_be_proven(
    heads: dict[str, Head], gap: int
) -> None:
    """To the gate the cloth is the patient, and the bone behind it is too deep."""
    bare = heads[SYNTHETIC]
    volume, right = hung(bare.volume, bare.face, gap=gap, thick=2)
    head = Head(volume=volume, face=right, examination=examine_input(volume))
    assert "facial_bone_found" in failures(head, right)
    for _, face in under_cover(bare.volume, bare.face, right):
        assert {"facial_bone_found", "no_skin_left_behind_a_cover"} <= set(failures(head, face))


def test_scalp_that_hangs_together_with_the_face_through_the_air_around_the_head_is_another_piece(
    heads: dict[str, Head],
) -> None:
    """Only air between two parts of a mask, as seen from the front, joins them."""
    bare = heads[SYNTHETIC]
    tissue = bare.volume.hu > TISSUE_HU
    last = np.flatnonzero(tissue.any(axis=(0, 2)))[-1]
    scalp = tissue & (np.arange(tissue.shape[1]) > last - SCALP_VOXELS)[:, None]
    assert failures(bare, bare.face | scalp | ~tissue) == ["mask_is_one_piece"]
