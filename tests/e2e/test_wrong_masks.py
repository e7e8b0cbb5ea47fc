"""The gate lets the right mask pass and refuses every deliberately wrong one, on each real head and on the synthetic one."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ctdeface_shared.options import Profile
from ctdeface_worker.domain import BoolArray, FaceMask, Volume
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.verification.gate import Examined, examine, judge
from tests.cases import small_head
from tests.measure.heads import HEADS
from tests.measure.volumes import load
from tests.measure.wrong_masks import coarser, draped, moved_to, under_cloth, wrong_masks
from tests.trial import defaced

ALL = slice(None)
PARTS = {
    "visible_human_female": (slice(0, None, 2), slice(90, 400, 2), slice(120, 390, 2)),
    "stanford_cthead": (ALL, slice(0, 250, 2), slice(6, 202, 2)),
    "vtk_headsq": (ALL, ALL, ALL),
    "dcm_qa_ct_ge": (ALL, slice(28, None, 4), slice(36, 480, 4)),
}
"""What is kept of each head, so that a trial takes about a second."""
SYNTHETIC = "synthetic head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A volume at about 2 mm with its right mask, examined by the gate once for all masks."""

    volume: Volume
    face: BoolArray
    seen: Examined


@pytest.fixture(scope="module")
def heads(real_data: Path) -> dict[str, Head]:
    """All heads, segmented once."""
    volumes = {name: coarser(load(real_data, name), PARTS[name]) for name in HEADS} | {SYNTHETIC: small_head().volume}
    segmenter = GeometricSegmenter()
    return {name: Head(volume=volume, face=segmenter.segment(volume).face, seen=examine(volume)) for name, volume in volumes.items()}


def failures(head: Head, face: BoolArray) -> list[str]:
    """Names of the checks that do not pass."""
    after = defaced(head.volume, FaceMask(face=face, geometry=head.volume.geometry, orientation="verified"))
    checks = judge(head.seen, after, face, profile=Profile.SOFT_TISSUE)
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize("name", [*HEADS, SYNTHETIC])
def test_the_right_mask_passes_and_every_wrong_one_is_refused(heads: dict[str, Head], name: str) -> None:
    """Shifted in six directions, mirrored, halved, without chin, thin, empty, everything, and every other patient's."""
    head = heads[name]
    assert failures(head, head.face) == []
    wrong = dict(wrong_masks(head.volume, head.face))
    for other in set(heads) - {name}:
        wrong[f"mask of {other}"] = moved_to(head.volume, head.face, heads[other].volume, heads[other].face)
    if name == SYNTHETIC:
        del wrong["mirrored left to right"]  # it is its own mirror image
    assert len(wrong) >= 20
    assert [what for what, face in wrong.items() if not failures(head, face)] == []


@pytest.mark.parametrize(("gap_mm", "thick_mm"), [(0.0, 2.0), (0.0, 5.0), (0.0, 8.0), (4.0, 2.0), (4.0, 8.0)])
@pytest.mark.parametrize("name", ["stanford_cthead", "vtk_headsq", SYNTHETIC])
def test_a_face_behind_a_cloth_goes_or_the_mask_is_refused(heads: dict[str, Head], name: str, gap_mm: float, thick_mm: float) -> None:
    """As dense as skin, it is the first surface from the front: that it is gone proves nothing of the face behind it."""
    bare = heads[name]
    volume, right = draped(bare.volume, bare.face, gap_mm=gap_mm, thick_mm=thick_mm)
    head = Head(volume=volume, face=right, seen=examine(volume))
    assert failures(head, right) == []
    assert [what for what, face in under_cloth(bare.volume, bare.face, right) if not failures(head, face)] == []
