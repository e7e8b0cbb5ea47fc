"""The evaluation at a reduced size: masks against truth, resuming, renders, the detector."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctdeface_shared.commands.main import main
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.evaluation import detector, pictures, run
from ctdeface_worker.evaluation.inputs import Input, Kind, found, load, phantoms, without_faces
from ctdeface_worker.evaluation.overlap import dice, hausdorff95_mm
from ctdeface_worker.evaluation.render import VIEWS, renders
from ctdeface_worker.evaluation.results import defaced, evaluate_input
from ctdeface_worker.imaging.domain import Geometry, Volume
from ctdeface_worker.imaging.nifti import write_nifti
from ctdeface_worker.phantom import without_face
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from tests.evaluate import by_the_tests
from tests.support.cases import small_head, write_small_case

REDUCED, FULL = 12, 60


def cube(shape: tuple[int, int, int] = (30, 30, 30)) -> Volume:
    """A box of tissue of 2 mm voxels."""
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = 2.0
    affine[3, 3] = 1.0
    hu = np.full(shape, 40.0, dtype=np.float32)
    return Volume(
        hu=hu, valid=np.ones(shape, dtype=bool), geometry=Geometry.from_affine(shape, affine)
    )


def test_similarity_of_masks_equals_a_count_by_hand() -> None:
    """A slab moved by three voxels of 2 mm has its borders 6 mm apart."""
    volume = cube()
    one, other = np.zeros((2, 30, 30, 30), dtype=bool)
    one[5:15], other[8:18] = True, True
    assert dice(one, other) == pytest.approx(0.7)
    assert hausdorff95_mm(volume, one, one) == 0
    assert hausdorff95_mm(volume, one, other) == pytest.approx(6.0)
    assert hausdorff95_mm(volume, one, np.zeros_like(one)) is None


def test_inputs_are_cases_volumes_and_phantoms(tmp_path: Path) -> None:
    """DICOM folders are cases, NIfTI files are volumes; phantoms have a true face."""
    write_small_case(tmp_path / "b-case")
    write_nifti(cube(), tmp_path / "coarse" / "a-volume.nii.gz")
    given = list(found(tmp_path))
    assert [(each.name, each.kind) for each in given] == [
        ("b-case", Kind.CASE),
        ("a-volume", Kind.VOLUME),
    ]
    assert [load(each).volume.hu.shape for each in given] == [
        small_head().volume.hu.shape,
        (30, 30, 30),
    ]
    (made,) = phantoms(1, unseen=True)
    assert (load(made).face_ml or 0) > 0
    assert load(given[0]).face_ml is None


def test_there_are_many_scans_without_a_face() -> None:
    """Sixty different names; a shorter list is the start of a longer one."""
    names = without_face.names(FULL)
    assert len(set(names)) == FULL
    assert names[:REDUCED] == without_face.names(REDUCED)


def test_no_scan_without_a_face_is_released_with_a_mask() -> None:
    """Crowns, necks, backs of heads, dry skulls, trunks, water and air are refused."""
    rows = [evaluate_input(each, [GeometricSegmenter()]) for each in without_faces(REDUCED)]
    assert [row.face_ml for row in rows] == [0.0] * REDUCED
    codes = {row.name: row.results[0].code for row in rows}
    assert all(codes.values()), codes


def test_the_command_evaluates_resumes_and_writes_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run keeps the results of the first, even before a truncated line."""
    write_small_case(tmp_path / "data" / "head")
    command = [
        "evaluate",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
        "--segmenter",
        "geometric",
        "--no-face",
        "1",
    ]
    assert main(command) == 0
    results = tmp_path / "out" / "results.jsonl"
    first = results.read_text(encoding="utf-8")
    results.write_text(first + '{"row": {"na', encoding="utf-8")
    assert main(command) == 0
    assert results.read_text(encoding="utf-8").startswith(first)
    assert len(results.read_text(encoding="utf-8").splitlines()) == 3
    groups = {
        group["kind"]: group
        for group in json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))[
            "groups"
        ]
    }
    assert groups[Kind.CASE]["released_with_face"] == 1
    assert groups[Kind.CASE]["skin_removed"]["least"] >= 0.985
    assert groups[Kind.NO_FACE]["released_without_face"] == 0
    assert "| head | geometric | released |" in (tmp_path / "out" / "table.md").read_text(
        encoding="utf-8"
    )
    assert "2/2" in capsys.readouterr().out


def test_results_are_not_kept_for_other_content_code_or_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of input, measure or code adds a new result."""
    write_nifti(cube(), tmp_path / "data" / "a.nii.gz")
    plan = run.EvaluationOptions(segmenters=["geometric"])
    results = tmp_path / run.RESULTS

    def rows(plan: run.EvaluationOptions = plan) -> int:
        assert len(list(run.run(list(found(tmp_path / "data")), plan, tmp_path))) == 1
        return len(results.read_text(encoding="utf-8").splitlines())

    assert [rows(), rows()] == [1, 1]
    write_nifti(cube((31, 30, 30)), tmp_path / "data" / "a.nii.gz")
    assert [rows(), rows()] == [2, 2]
    assert rows(replace(plan, measure=by_the_tests)) == 3
    monkeypatch.setattr(run, "code_digest", lambda: "another state")
    assert [rows(), rows()] == [4, 4]


def test_volumes_of_the_same_name_are_named_with_their_folders(tmp_path: Path) -> None:
    """A unique file name stays as it is."""
    for folder in ("one", "two"):
        write_nifti(cube(), tmp_path / folder / "ct.nii.gz")
    write_nifti(cube(), tmp_path / "two" / "only.nii.gz")
    assert [each.name for each in found(tmp_path)] == ["one--ct.nii.gz", "two--ct.nii.gz", "only"]


def test_pictures_are_drawn_again_for_other_content_or_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused scan has pictures before only, and is not repeated."""
    write_nifti(cube(), tmp_path / "data" / "a.nii.gz")

    def drawn() -> list[str]:
        return list(pictures.draw(found(tmp_path / "data"), [GeometricSegmenter()], tmp_path))

    assert [drawn(), drawn()] == [["a"], []]
    seen = {path.parent.name for path in (tmp_path / "renders" / "a").rglob("*.png")}
    assert seen == {"before"}
    write_nifti(cube((31, 30, 30)), tmp_path / "data" / "a.nii.gz")
    assert [drawn(), drawn()] == [["a"], []]
    monkeypatch.setattr(pictures, "code_digest", lambda: "another state")
    assert [drawn(), drawn()] == [["a"], []]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "nothing to evaluate"),
        (["data"], "nothing to evaluate"),
        (["data", "--only", "typo"], "has no input named typo"),
    ],
)
def test_an_evaluation_without_inputs_is_an_error(
    tmp_path: Path,
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Otherwise an empty table would look like a good result."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert main(["evaluate", *more, "--out", "out", "--segmenter", "geometric"]) == 78
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_mask_of_a_phantom_is_compared_with_its_truth() -> None:
    """Dice, missed tissue and overlap use the true face and the true brain."""
    (wanted,) = (each for each in phantoms(7, unseen=True) if each.seed == 7)
    (result,) = evaluate_input(wanted, [GeometricSegmenter()]).results
    assert result.released
    assert 0.7 < (result.tissue_dice or 0) < 1
    assert (result.face_kept or 1) < 0.3
    assert result.overlap_voxels == 0


def test_renders_show_five_views() -> None:
    """A peg on a box points left and right with the yaw, up and down with the pitch."""
    volume = cube()
    hu = np.full(volume.hu.shape, -1000.0, dtype=np.float32)
    hu[10:20, 18:28, 10:20], hu[14:16, 2:18, 14:16] = 40.0, 40.0
    seen = renders(Volume(hu=hu, valid=volume.valid, geometry=volume.geometry))
    assert set(seen) == set(VIEWS)
    off = {
        view: np.argwhere(picture > 0).mean(axis=0) - (np.array(picture.shape) - 1) / 2
        for view, picture in seen.items()
    }
    assert np.abs(off["front"]).max() < 1.5
    # Most of the picture is the box, on the other side of the middle.
    assert off["yaw+30"][1] < -5 < 5 < off["yaw-30"][1]
    assert off["pitch-20"][0] < -3 < 3 < off["pitch+20"][0]  # rows run downward


def test_bulky_removes_eyes_nose_and_jaw() -> None:
    """No bone remains in front of the spine at the jaw, and nothing at the eyes above."""
    volume = small_head().volume
    left = defaced(volume, GeometricSegmenter().segment(volume, profile=Profile.BULKY).face).hu
    z, y = (
        volume.geometry.slice_origins_lps[:, 2],
        volume.geometry.slice_origins_lps[0, 1] + np.arange(left.shape[1]) * 2.0,
    )
    jaw = left[(z > -88) & (z < -40)][:, y < -24]
    assert (volume.hu[(z > -88) & (z < -40)][:, y < -24] > 300).sum() > 1000
    assert not (jaw > 300).any()
    assert not (left[(z > -30) & (z < 16)][:, y < -56] > -300).any()


def test_the_detector_runs_in_its_own_environment(tmp_path: Path) -> None:
    """The script runs with the given Python; a missing Python is a configuration error."""
    assert Path(detector.__file__).name == "detector.py"
    picture = tmp_path / "out" / "renders" / "head" / "before"
    picture.mkdir(parents=True)
    stand_in = tmp_path / "python"
    output = json.dumps(
        {
            "head/before/front.png": 0.75,
            "forgotten/before/front.png": 0.5,
            "head/old network/front.png": 1,
        }
    )
    stand_in.write_text(f"#!{sys.executable}\nprint({output!r})\n", encoding="utf-8")
    stand_in.chmod(0o700)
    other = picture.parent.parent / "forgotten" / "before"
    other.mkdir(parents=True)
    faces: Any = pictures.detect(
        stand_in, [Input(name="head", kind=Kind.CASE)], [], tmp_path / "out"
    )
    assert faces == {"head": {"before": {"front": 0.75}}}
    assert json.loads((tmp_path / "out" / "faces.json").read_text(encoding="utf-8")) == faces
    out = ["evaluate", "--out", str(tmp_path / "none"), "--segmenter", "geometric"]
    assert main([*out, "--detector-python", str(tmp_path / "missing")]) == 78
