"""A second head or face anywhere in the volume is found, and nothing of the case is released."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.canonical import to_canonical
from ctdeface_worker.phantom.company import Place, cast, childlike, mask_of, together
from ctdeface_worker.phantom.company import a_head as make_head
from ctdeface_worker.phantom.dicom import write_case
from ctdeface_worker.phantom.head import Phantom
from ctdeface_worker.phantom.scan import Scan
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.verification.cavity import find_cavity
from ctdeface_worker.verification.faces import MOST_ALIKE, check_one_face, find_face_like
from ctdeface_worker.verification.gate import verify_volume
from ctdeface_worker.verification.heads import MOST_FURTHER_ML, check_one_skull, find_further_cavity
from tests.support.cases import small_head
from tests.support.measure.heads import HEADS as REAL_HEADS
from tests.support.measure.volumes import load
from tests.support.runs import run_case, snapshot
from tests.support.volume_results import defaced

a_head = cache(make_head)
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


TABLE = Scan(spacing_mm=SPACING_MM, low_mm=(-128, -136, -124), high_mm=(340, 170, 146))
CHEST = Scan(spacing_mm=SPACING_MM, low_mm=(-150, -180, -330), high_mm=(150, 170, 146))
TABLE_MM = 165.0


def beside_a_mask(hu: float, place: Place, *, thick_mm: float = 4.0) -> Phantom:
    """A mask on the table beside the head."""
    mask = mask_of(a_head(3), hu=hu, thick_mm=thick_mm)
    return together(a_head(1), [(mask, place)], TABLE, table_mm=TABLE_MM)


def under_a_mask(place: Place) -> Phantom:
    """A mask on the chest of the patient."""
    chest = cast(a_head(7), hu=40)  # turned face down, its back is as round as a chest
    return together(
        a_head(1),
        [
            (chest, Place(at_mm=(0, 60, -230), turn_degrees=(180, 0, 0))),
            (mask_of(a_head(3), hu=100), place),
        ],
        CHEST,
        table_mm=None,
    )


ON_TABLE = Place(at_mm=(225, 140, 0))
FACES: dict[str, Callable[[], Phantom]] = {
    "of silicone": lambda: beside_a_mask(200, ON_TABLE),
    "of plastic": lambda: beside_a_mask(100, ON_TABLE),
    "of rubber": lambda: beside_a_mask(-50, ON_TABLE),
    "of plaster": lambda: beside_a_mask(1500, ON_TABLE),
    "feet first": lambda: beside_a_mask(100, replace(ON_TABLE, turn_degrees=(0, 0, 170))),
    "leaning": lambda: beside_a_mask(100, Place(at_mm=(225, 100, 0), turn_degrees=(30, 20, 0))),
    "of a child": lambda: beside_a_mask(100, replace(ON_TABLE, size=0.65)),
    "a relief": lambda: beside_a_mask(100, Place(at_mm=(225, 90, 0)), thick_mm=40),
    "on the chest": lambda: under_a_mask(Place(at_mm=(0, 30, -230))),
    "a cast of a head": lambda: together(
        a_head(1),
        [(cast(a_head(5), hu=120), Place(at_mm=(220, 0, 0)))],
        BESIDE,
        table_mm=None,
    ),
}


@pytest.mark.parametrize("name", FACES)
def test_a_mask_of_a_face_is_found_well_above_the_bound(name: str) -> None:
    """It has no skull; each resembles a face at least 1.25 times as much as is allowed."""
    volume = FACES[name]().volume
    canonical = to_canonical(volume)
    cavity = find_cavity(canonical)
    found = find_face_like(canonical, cavity)
    assert find_further_cavity(canonical, cavity).ml == 0
    assert found.alike >= 1.25 * MOST_ALIKE
    assert not check_one_face(found, volume.geometry).passed


@pytest.mark.parametrize("name", HEADS)
def test_a_second_skull_is_found_well_above_the_bound(name: str) -> None:
    """Each has at least 1.4 times the volume that is allowed."""
    volume = HEADS[name]().volume
    canonical = to_canonical(volume)
    further = find_further_cavity(canonical, find_cavity(canonical))
    assert further.ml >= 1.4 * MOST_FURTHER_ML
    assert not check_one_skull(further, volume.geometry).passed


def test_one_head_has_no_further_cavity() -> None:
    """Neither sinuses nor mouth count, and its own face is left out."""
    canonical = to_canonical(small_head().volume)
    cavity = find_cavity(canonical)
    assert find_further_cavity(canonical, cavity).ml == 0
    assert find_face_like(canonical, cavity).alike == 0


@pytest.mark.parametrize("name", [*REAL_HEADS, "pt_136", "pt_216", "pt_227"])
def test_one_real_head_stays_a_fifth_below_both_bounds(real_data: Path, name: str) -> None:
    """Heads with shoulders, arms, straps and couches; the coarse ones come nearest to a bound."""
    canonical = to_canonical(load(real_data, name))
    cavity = find_cavity(canonical)
    assert find_further_cavity(canonical, cavity).ml <= 0.8 * MOST_FURTHER_ML
    assert find_face_like(canonical, cavity).alike <= 0.8 * MOST_ALIKE


def test_the_right_mask_of_one_of_two_heads_is_refused_for_the_other_only() -> None:
    """Everything else about the first head is proven."""
    scene = HEADS["side by side"]()
    mask = GeometricSegmenter().segment(scene.volume)
    checks = verify_volume(
        scene.volume, defaced(scene.volume, mask), mask.face, profile=Profile.SOFT_TISSUE
    )
    failed = {check.name for check in checks if not check.passed}
    assert failed == {"one_skull", "one_face"}


@pytest.mark.parametrize("name", ["side by side", "one above the other", "of plastic"])
def test_nothing_of_a_case_with_a_second_head_is_released(name: str, tmp_path: Path) -> None:
    """Through the whole pipeline; no file is staged, and the code names the reason."""
    write_case((HEADS | FACES)[name](), tmp_path / "case")
    done = run_case(tmp_path / "case", tmp_path / "out")
    assert (done.result.released, done.result.code) == (False, "SeveralHeads")
    assert snapshot(done.staged) == {}
