"""A second head or face anywhere in the volume is found, and nothing of the case is released."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.canonical import to_canonical
from ctdeface_worker.phantom.company import Place, a_head, childlike, together
from ctdeface_worker.phantom.dicom import write_case
from ctdeface_worker.phantom.head import Phantom
from ctdeface_worker.phantom.scan import Scan
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.verification.cavity import find_cavity
from ctdeface_worker.verification.gate import verify_volume
from ctdeface_worker.verification.heads import MOST_FURTHER_ML, check_one_skull, find_further_cavity
from tests.support.cases import small_head
from tests.support.runs import run_case, snapshot
from tests.support.volume_results import defaced

SPACING_MM = (3.0, 2.5, 2.5)
BESIDE = Scan(spacing_mm=SPACING_MM, low_mm=(-128, -136, -124), high_mm=(350, 130, 146))
UPWARD = Scan(spacing_mm=SPACING_MM, low_mm=(-128, -136, -124), high_mm=(128, 130, 400))
BEHIND = Scan(spacing_mm=SPACING_MM, low_mm=(-128, -136, -124), high_mm=(128, 350, 146))
HALF = Scan(spacing_mm=SPACING_MM, low_mm=(-128, -136, -124), high_mm=(200, 130, 146))


def two_heads(scan: Scan, place: Place, other: Phantom | None = None) -> Phantom:
    """Another person's head in the field of view of the first."""
    return together(a_head(1), [(other or a_head(5), place)], scan, table_mm=None)


HEADS: dict[str, Callable[[], Phantom]] = {
    "side by side": lambda: two_heads(BESIDE, Place(at_mm=(220, 0, 0))),
    "cheek to cheek": lambda: two_heads(BESIDE, Place(at_mm=(160, 0, 0))),
    "one above the other": lambda: two_heads(UPWARD, Place(at_mm=(0, 0, 250))),
    "crown to crown": lambda: two_heads(UPWARD, Place(at_mm=(0, 0, 262), turn_degrees=(0, 0, 180))),
    "one behind the other": lambda: two_heads(BEHIND, Place(at_mm=(0, 230, 0))),
    "lying on the side": lambda: two_heads(
        BESIDE, Place(at_mm=(230, 0, 0), turn_degrees=(0, 0, 90))
    ),
    "half in view": lambda: two_heads(HALF, Place(at_mm=(200, 0, 0))),
    "mother and child": lambda: two_heads(
        BESIDE,
        Place(at_mm=(170, 30, -60), turn_degrees=(40, 0, 30), size=0.6),
        childlike(a_head(5)),
    ),
    "mother and newborn": lambda: two_heads(
        BESIDE,
        Place(at_mm=(150, 0, -60), turn_degrees=(70, 30, 0), size=0.5),
        childlike(a_head(5)),
    ),
    "a skull beside the patient": lambda: two_heads(
        BESIDE, Place(at_mm=(220, 0, 0)), a_head(5, soft_tissue=False)
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_second_skull_is_found_well_above_the_bound(name: str) -> None:
    """Each has at least 1.4 times the volume that is allowed."""
    volume = HEADS[name]().volume
    canonical = to_canonical(volume)
    further = find_further_cavity(canonical, find_cavity(canonical))
    assert further.ml >= 1.4 * MOST_FURTHER_ML
    assert not check_one_skull(further, volume.geometry).passed


def test_one_head_has_no_further_cavity() -> None:
    """Neither sinuses nor mouth count."""
    canonical = to_canonical(small_head().volume)
    assert find_further_cavity(canonical, find_cavity(canonical)).ml == 0


def test_the_right_mask_of_one_of_two_heads_is_refused_for_the_other_only() -> None:
    """Everything else about the first head is proven."""
    scene = HEADS["side by side"]()
    mask = GeometricSegmenter().segment(scene.volume)
    checks = verify_volume(
        scene.volume, defaced(scene.volume, mask), mask.face, profile=Profile.SOFT_TISSUE
    )
    assert [check.name for check in checks if not check.passed] == ["one_skull"]


@pytest.mark.parametrize("name", ["side by side", "one above the other", "mother and child"])
def test_nothing_of_a_case_with_two_heads_is_released(name: str, tmp_path: Path) -> None:
    """Through the whole pipeline; no file is staged, and the code names the reason."""
    write_case(HEADS[name](), tmp_path / "case")
    done = run_case(tmp_path / "case", tmp_path / "out")
    assert (done.result.released, done.result.code) == (False, "SeveralHeads")
    assert snapshot(done.staged) == {}
