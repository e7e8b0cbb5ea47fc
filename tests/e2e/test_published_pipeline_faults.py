"""Twenty-five known faults of a published CT defacing pipeline, and the opposite here.

Five runs are shared: reformats with a scout, an awkward axial series, an annotated case, a batch of
three cases, and a batch whose input folder is itself the case.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import EnhancedCTImageStorage, JPEGLSLossless

from ctdeface_shared.errors import MixedPatients, NotDicom
from ctdeface_shared.jobs.options import FillRule, Profile
from ctdeface_worker.batch.discovery import find_cases
from ctdeface_worker.case.child_process import WarmChild, WorkerCrashed
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.imaging.domain import FaceMask, Fate, Geometry, Volume
from ctdeface_worker.phantom.dicom import PLAIN, Plane, Variation, reordered, uid
from ctdeface_worker.pipeline.fill import fill_value_hu
from ctdeface_worker.pipeline.pipeline import deface_case
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.report.model import CaseReport
from tests.support.cases import (
    add_localizer,
    add_second_patient,
    small_head,
    truncate,
    write_small_case,
)
from tests.support.ct_files import put, stack
from tests.support.runs import OPTIONS, Run, run_case, snapshot, stored

COMMAND = Path(sys.executable).parent / "ctdeface"
CORONAL, SAGITTAL = str(uid("coronal")), str(uid("sagittal"))
SCOUT_SERIES = "1.2.3"
"""Sorts before every other series."""


def rewrite(
    file: Path, change: Callable[[pydicom.Dataset], None], target: Path | None = None
) -> None:
    """Change a file's data set and save it, its file meta information following."""
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(target or file, enforce_file_format=True)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice coefficient."""
    return float(
        2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))
    )


def removed(run: Run, series: str | None = None) -> NDArray[np.bool_]:
    """Return the changed voxels, (slice, row, column), in order of position."""
    pairs = sorted(
        run.released(series),
        key=lambda pair: tuple(float(v) for v in pair.before.ImagePositionPatient),
    )
    return np.stack([pair.changed for pair in pairs])


class EmptyMask:
    """A segmenter that finds nothing and does not say so."""

    name = "empty"
    digest = "0"
    origin = "built-in"

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """Return a mask without a single voxel."""
        del profile, ears
        return FaceMask(face=np.zeros(volume.geometry.shape, dtype=bool), geometry=volume.geometry)


class MaskOfAnother:
    """A segmenter that answers with another volume's mask."""

    name = "another"
    digest = "0"
    origin = "built-in"

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """Return the phantom's mask without its last slice."""
        del profile, ears
        slices, rows, columns = volume.geometry.shape
        geometry = Geometry.from_affine((slices - 1, rows, columns), volume.geometry.affine_lps)
        return FaceMask(face=small_head().face[:-1].copy(), geometry=geometry)


class Dying:
    """A segmenter whose process ends in the middle, as a crashed predictor does."""

    name = "dying"
    digest = "0"
    origin = "built-in"

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """End the process."""
        del volume, profile, ears
        os._exit(3)


def prepare_dying() -> Callable[[CaseTask, Callable[[str], None]], CaseResult]:
    """Make a child that dies over its first case."""

    def run(task: CaseTask, notify: Callable[[str], None]) -> CaseResult:
        return deface_case(task, Dying(), notify)

    return run


@pytest.fixture(scope="module")
def reformats(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return coronal and sagittal series and a scout that sorts first.

    The series have 128 slices of 90 rows and 128 columns.
    """
    folder = tmp_path_factory.mktemp("reformats")
    for plane, series in ((Plane.CORONAL, CORONAL), (Plane.SAGITTAL, SAGITTAL)):
        for file in write_small_case(folder / "case" / plane.value, Variation(plane=plane)):

            def move(dataset: pydicom.Dataset, series: str = series) -> None:
                dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (
                    series,
                    uid(dataset.SOPInstanceUID, series),
                )

            rewrite(file, move)
    scout = add_localizer(folder / "case" / Plane.CORONAL)
    rewrite(scout, lambda dataset: setattr(dataset, "SeriesInstanceUID", SCOUT_SERIES))

    def again(dataset: pydicom.Dataset) -> None:
        dataset.SOPInstanceUID = uid("second scout")

    rewrite(scout, again, scout.with_name("SCOUT2.dcm"))
    return run_case(folder / "case", folder)


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return an axial series with reversed numbers, random names, padding and varying rescale."""
    folder = tmp_path_factory.mktemp("awkward")
    files = write_small_case(folder / "case", replace(PLAIN, padding_circle=True))
    names = random.Random(7).sample(range(1000), len(files))
    for number, file in enumerate(files):

        def rescale(dataset: pydicom.Dataset, number: int = number) -> None:
            values = stored(dataset)
            dataset.InstanceNumber, dataset.BitsStored, dataset.HighBit = (
                len(files) - number,
                13,
                12,
            )
            if number % 2:
                values, dataset.RescaleSlope = values * 2, 0.5
            else:
                values, dataset.RescaleIntercept = (
                    np.where(values == 0, 0, values + 76).astype(np.uint16),
                    -1100,
                )
            dataset.PixelData = values.tobytes()

        rewrite(file, rescale, file.with_name(f"{names[number]:03d}"))
        file.unlink()

    def enhanced(dataset: pydicom.Dataset) -> None:
        dataset.SOPClassUID, dataset.NumberOfFrames = EnhancedCTImageStorage, 2
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid("enhanced"), uid("enhanced", 1)
        dataset.PixelData *= 2

    rewrite(folder / "case" / f"{names[0]:03d}", enhanced, folder / "case" / "enhanced")
    return run_case(folder / "case", folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch that was run from a folder of its own."""

    scans: Path
    out: Path
    work: Path
    done: subprocess.CompletedProcess[str]

    def report(self, case: str) -> CaseReport:
        """The one report of a case."""
        (path,) = (self.out.with_name("out.ctdeface") / "reports" / case).glob("*/report.json")
        return CaseReport.from_json(path.read_bytes())


def run_batch(root: Path, *arguments: str) -> Batch:
    """Run the command with a work root that holds a file of the user."""
    (root / "work").mkdir()
    (root / "elsewhere").mkdir()
    (root / "work" / "precious.txt").write_text("mine", encoding="utf-8")
    command: list[str | Path] = [
        COMMAND,
        "deface",
        "-i",
        root / "scans",
        "-o",
        root / "out",
        "-w",
        root / "work",
        *arguments,
    ]
    environment = {**os.environ, "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.1"}
    done = subprocess.run(
        command,
        cwd=root / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    return Batch(scans=root / "scans", out=root / "out", work=root / "work", done=done)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Return the cases a/b (compressed), a__b and a/a, which has a truncated slice."""
    root = tmp_path_factory.mktemp("batch")
    scans = root / "scans"
    truncate(write_small_case(scans / "a" / "a", replace(PLAIN, patient_id="P-1"))[40])
    write_small_case(
        scans / "a" / "b" / "study" / "series",
        replace(PLAIN, patient_id="P-2", transfer_syntax=JPEGLSLossless),
    )
    write_small_case(scans / "a__b", replace(PLAIN, patient_id="P-3"))
    return run_batch(root, "--case-depth", "2", "--jobs", "1")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """The input folder is itself the one case."""
    root = tmp_path_factory.mktemp("single")
    write_small_case(root / "scans")
    return run_batch(root)


def test_fault_01_every_volume_is_defaced_and_a_scout_that_sorts_first_is_withheld(
    reformats: Run,
) -> None:
    """Fault 1: only the first series was read. Every CT volume is processed."""
    assert reformats.result.released, reformats.result.reason
    assert set(reformats.result.released_series) == {CORONAL, SAGITTAL}
    scouts = [file for file in reformats.result.files if file.series == SCOUT_SERIES]
    assert [(file.fate, file.code) for file in scouts] == [(Fate.WITHHELD, "Localizer")] * 2


def test_fault_02_pixels_are_bound_to_their_instance_and_patients_are_never_mixed(
    reformats: Run, tmp_path: Path
) -> None:
    """Fault 2: series were matched by number of slices. Pixels are matched by instance."""
    counts = [sum(1 for _ in reformats.released(series)) for series in (CORONAL, SAGITTAL)]
    assert counts == [128, 128]
    for pair in reformats.released():
        assert pair.before.SOPInstanceUID == pair.after.SOPInstanceUID
        assert np.array_equal(stored(pair.before)[~pair.changed], stored(pair.after)[~pair.changed])
        assert pair.changed.mean() < 0.9
    write_small_case(tmp_path / "case")
    add_second_patient(tmp_path / "case")
    mixed = run_case(tmp_path / "case", tmp_path)
    assert (mixed.result.code, mixed.outputs) == (MixedPatients.code, set())


def test_fault_03_as_many_slices_as_columns_leave_sagittal_images_sagittal(reformats: Run) -> None:
    """Fault 3: planes of another axis were saved. Each image keeps its plane."""
    files = list(reformats.released(SAGITTAL))
    assert len(files) == files[0].before.Columns
    expected = reordered(small_head().face, Plane.SAGITTAL)
    assert (
        overlap(removed(reformats, SAGITTAL), expected)
        > overlap(removed(reformats, SAGITTAL).transpose(2, 1, 0), expected) + 0.3
    )


def test_fault_04_instance_numbers_against_the_positions_change_nothing(awkward: Run) -> None:
    """Fault 4: slices were ordered by InstanceNumber. Position decides the order."""
    assert awkward.result.released, awkward.result.reason
    changed, truth = removed(awkward), small_head().face
    assert overlap(changed, truth) > overlap(changed[::-1], truth) + 0.15
    assert not np.any(changed & small_head().brain)


def test_fault_05_each_instance_is_filled_through_its_own_inverse_rescale(awkward: Run) -> None:
    """Fault 5: HU were stored without rescale. Each instance uses its own inverse rescale."""
    values = set()
    for pair in awkward.released():
        inside = stored(pair.after)[pair.changed] * float(pair.after.RescaleSlope) + float(
            pair.after.RescaleIntercept
        )
        if inside.size:
            assert np.ptp(inside) == 0
            values.add((float(pair.after.RescaleSlope), float(inside[0])))
    assert {slope for slope, _ in values} == {0.5, 1.0}
    assert np.ptp([hu for _, hu in values]) <= 1.0
    assert all(-1100 <= hu <= -900 for _, hu in values)


def test_fault_06_slices_without_face_stay_identical_to_the_last_byte(awkward: Run) -> None:
    """Fault 6: an empty mask changed 62 % of the voxels. Untouched voxels keep their integers."""
    untouched = [pair.name for pair in awkward.released() if not pair.changed.any()]
    assert len(untouched) > 10
    for name in untouched:
        assert (awkward.staged / name).read_bytes() == (awkward.source / name).read_bytes()


def test_fault_07_a_mask_that_removes_nothing_is_never_released(tmp_path: Path) -> None:
    """Fault 7: unchanged volumes were written. They are refused, and nothing is staged."""
    write_small_case(tmp_path / "case")
    run = run_case(tmp_path / "case", tmp_path, segmenter=EmptyMask())
    assert (run.result.released, run.result.code, run.outputs) == (
        False,
        "VerificationFailed",
        set(),
    )
    assert "empty" in run.result.reason


def test_fault_08_a_prediction_that_fails_or_does_not_fit_is_a_failure(tmp_path: Path) -> None:
    """Fault 8: an old mask was written as CT. A failed prediction fails the series."""
    write_small_case(tmp_path / "case")
    run = run_case(tmp_path / "case", tmp_path / "shape", segmenter=MaskOfAnother())
    assert (run.result.released, run.result.code, run.outputs) == (
        False,
        "InconsistentGeometry",
        set(),
    )
    staged = tmp_path / "staged"
    staged.mkdir()
    task = CaseTask(
        source=tmp_path / "case", staged=staged, work=tmp_path / "work", options=OPTIONS
    )
    child: WarmChild[CaseTask, CaseResult] = WarmChild(prepare_dying)
    with pytest.raises(WorkerCrashed):
        child.run(task, on_stage=lambda _: None, timeout_seconds=120)
    child.close()
    assert snapshot(staged) == {}


def test_fault_09_only_released_instances_come_out_and_each_with_its_pixels(reformats: Run) -> None:
    """Fault 9: files were copied unchanged, without pixels. Only released instances are written."""
    assert reformats.outputs == {
        file.file for file in reformats.result.files if file.fate is Fate.RELEASED
    }
    assert not any("SCOUT" in name for name in reformats.outputs)
    for pair in reformats.released():
        assert len(pair.after.PixelData) == pair.after.Rows * pair.after.Columns * 2


def test_fault_10_no_rotation_or_flip_is_guessed(reformats: Run) -> None:
    """Fault 10: rotations were chosen by comparing images. Geometry decides."""
    for series, plane in ((CORONAL, Plane.CORONAL), (SAGITTAL, Plane.SAGITTAL)):
        changed, truth = removed(reformats, series), reordered(small_head().face, plane)
        front = (
            (0, 1) if plane is Plane.CORONAL else (1, 2)
        )  # axes along which a head is not symmetric
        assert (
            overlap(changed, truth)
            > max(overlap(np.flip(changed, axis), truth) for axis in front) + 0.15
        )
        assert np.count_nonzero(changed & truth) > 0.85 * np.count_nonzero(truth)
        assert not np.any(changed & reordered(small_head().brain, plane))


def test_fault_11_what_else_lies_in_the_work_folder_stays(single: Batch) -> None:
    """Fault 11: with one case the whole work folder was deleted. Ours removes only what it made."""
    assert single.done.returncode == 0, single.done.stderr
    assert (single.work / "precious.txt").read_text(encoding="utf-8") == "mine"


def test_fault_12_nothing_of_the_patient_is_left_in_the_work_folder(
    single: Batch, batch: Batch
) -> None:
    """Fault 12: undefaced volumes stayed in folders. Work and staging are left empty."""
    for run in (single, batch):
        assert snapshot(run.work) == {"precious.txt": b"mine"}
        assert snapshot(run.out.with_name("out.ctdeface") / "staging") == {}


def test_fault_13_text_is_no_dicom(tmp_path: Path) -> None:
    """Fault 13: text counted as DICOM. It is neither a case nor a slice."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("not an image\n" * 100, encoding="utf-8")
    assert find_cases(tmp_path) == ()
    with pytest.raises(NotDicom):
        select(read_case(tmp_path / "notes"))
    (tmp_path / "notes" / "b.dcm").write_text("not an image\n" * 100, encoding="utf-8")
    assert {fate.file: fate.fate for fate in select(read_case(tmp_path / "notes")).others} == {
        "a.txt": Fate.WITHHELD,
        "b.dcm": Fate.FAILED,
    }


def test_fault_14_trees_of_any_depth_are_searched(batch: Batch) -> None:
    """Fault 14: only first-level folders were searched. All files are found, and the tree stays."""
    files = {
        path.relative_to(batch.scans / "a" / "b")
        for path in (batch.scans / "a" / "b").rglob("*.dcm")
    }
    assert {
        path.relative_to(batch.out / "a" / "b") for path in (batch.out / "a" / "b").rglob("*.dcm")
    } == files
    assert {path.parent.as_posix() for path in files} == {"study/series"}


def test_fault_15_compressed_input_is_defaced_and_compressed_again(batch: Batch) -> None:
    """Fault 15: compressed pixels broke the file. They are edited and encoded losslessly."""
    changed = 0
    for after in sorted((batch.out / "a" / "b").rglob("*.dcm")):
        dataset = pydicom.dcmread(after)
        before = pydicom.dcmread(batch.scans / after.relative_to(batch.out))
        assert dataset.file_meta.TransferSyntaxUID == JPEGLSLossless
        differ = stored(before) != stored(dataset)
        changed += int(np.count_nonzero(differ))
        assert len(np.unique(stored(dataset)[differ])) <= 1
    assert changed > 10_000


def test_fault_16_a_slice_that_cannot_be_read_refuses_the_case(batch: Batch) -> None:
    """Fault 16: unreadable slices were skipped. The case is refused, naming the file."""
    report = batch.report("a/a")
    assert (report.result.released, report.result.code) == (False, "UnreadableInstance")
    assert "IM0041.dcm" in report.result.reason
    assert len(report.result.files) == 90
    assert not (batch.out / "a" / "a").exists()


def test_fault_17_a_bad_case_costs_itself_only_and_nothing_partial_is_visible(batch: Batch) -> None:
    """Fault 17: one bad case ended the batch. The others continue; visible output is complete."""
    assert batch.done.returncode == 1, batch.done.stderr
    assert {path.name for path in batch.out.iterdir()} == {"a", "a__b"}
    for case in ("a/b", "a__b"):
        outputs = batch.report(case).outputs
        assert len(outputs) == 90
        assert snapshot(batch.out / case).keys() == outputs.keys()


def test_fault_18_no_other_picture_of_the_face_stays_and_derived_instances_say_so(
    annotated: Run, tmp_path: Path
) -> None:
    """Fault 18: icons, overlays and other copies stayed. They are blanked or withheld."""
    assert annotated.result.released, annotated.result.reason
    (pair,) = (pair for pair in annotated.released() if "IconImageSequence" in pair.before)
    assert any(pair.before.IconImageSequence[0].PixelData)
    assert any(pair.before[0x6000, 0x3000].value)
    assert not any(pair.after.IconImageSequence[0].PixelData)
    assert not any(pair.after[0x6000, 0x3000].value)
    assert (
        pair.after.SOPInstanceUID
        != pair.before.SOPInstanceUID
        == pair.before.file_meta.MediaStorageSOPInstanceUID
    )
    assert pair.after.file_meta.MediaStorageSOPInstanceUID == pair.after.SOPInstanceUID
    assert pair.after.ImageType[0] == "DERIVED"
    assert pair.after.RecognizableVisualFeatures == "NO"
    assert pair.after.DeidentificationMethodCodeSequence[-1].CodeValue == "113102"
    put(
        tmp_path / "case",
        [replace(file, stored=np.zeros((128, 128), np.uint16)) for file in stack(4)],
    )
    add_document_with_a_copy_of(tmp_path / "case" / "1-0002.dcm")
    run = run_case(tmp_path / "case", tmp_path)
    assert {file.code for file in run.result.files} == {"UnsupportedObject"}
    assert run.outputs == set()


def add_document_with_a_copy_of(file: Path) -> None:
    """Add an element of the standard that holds a copy of a slice to a file."""
    dataset = pydicom.dcmread(file)
    pixels = np.arange(dataset.Rows * dataset.Columns, dtype=np.uint16).tobytes()
    dataset.PixelData = dataset.EncapsulatedDocument = pixels
    dataset.save_as(file, enforce_file_format=True)


def test_fault_19_multi_frame_objects_are_withheld(awkward: Run) -> None:
    """Fault 19: one frame would have replaced many. The object is withheld."""
    enhanced = awkward.file("enhanced")
    assert (enhanced.fate, enhanced.code) == (Fate.WITHHELD, "UnsupportedObject")
    assert "multi-frame" in enhanced.reason
    assert "enhanced" not in awkward.outputs


def test_fault_20_every_series_and_every_case_gets_its_own_mask(
    reformats: Run, batch: Batch
) -> None:
    """Fault 20: only the last prediction was used. Each series has its own mask."""
    defaced = [one for one in reformats.result.series if one.fate is Fate.RELEASED]
    assert {one.series for one in defaced} == {CORONAL, SAGITTAL}
    assert all(one.mask_ml > one.tissue_ml > 100 for one in defaced)
    assert all(removed(reformats, series).any() for series in (CORONAL, SAGITTAL))
    assert all(batch.report(case).result.series[0].mask_ml > 100 for case in ("a/b", "a__b"))


def test_fault_21_the_current_folder_does_not_matter_and_errors_name_no_patient(
    batch: Batch,
) -> None:
    """Fault 21: the model path was relative, and output quoted paths. Stderr stays silent."""
    assert snapshot(batch.out.with_name("elsewhere")) == {}
    assert batch.report("a__b").result.model_digest
    assert "P-2" not in batch.done.stderr + batch.done.stdout
    assert str(batch.scans) not in batch.done.stderr


def test_fault_22_the_fill_is_air_and_never_padding(awkward: Run) -> None:
    """Fault 22: the fill could be padding and outline the mask. It is the scan's own air."""
    padding = 0
    for pair in awkward.released():
        outside = stored(pair.before) == pair.before.PixelPaddingValue
        padding += int(np.count_nonzero(outside))
        assert np.array_equal(outside, stored(pair.after) == pair.after.PixelPaddingValue)
    assert padding > 10_000
    head = small_head().volume
    hu: NDArray[Any] = head.hu.copy()
    hu[:, :40], hu[:, 40:80] = -3024, -1000
    valid = hu != -3024
    volume = Volume(hu=hu, valid=valid, geometry=head.geometry)
    assert all(
        -1100 <= fill_value_hu(volume, FillRule.parse(rule)) <= -900 for rule in ("air", "p10")
    )


def test_fault_23_case_names_never_collide(batch: Batch) -> None:
    """Fault 23: a/b and a__b overwrote each other. Names stay as folders."""
    patients = {
        case: {pydicom.dcmread(file).PatientID for file in (batch.out / case).rglob("*.dcm")}
        for case in ("a/b", "a__b")
    }
    assert patients == {"a/b": {"P-2"}, "a__b": {"P-3"}}
    assert batch.report("a/b").job_id != batch.report("a__b").job_id


def test_fault_24_images_need_not_be_square(reformats: Run) -> None:
    """Fault 24: non-square images ended in an error. They are defaced."""
    assert {(pair.after.Rows, pair.after.Columns) for pair in reformats.released()} == {(90, 128)}


def test_fault_25_images_of_several_sizes_in_one_series_are_volumes_of_their_own(
    tmp_path: Path,
) -> None:
    """Fault 25: mixed sizes ended the batch. They are split; small parts are withheld."""
    small = [
        replace(file, number=file.number + 10, stored=np.zeros((4, 4), np.uint16))
        for file in stack(4)
    ]
    odd = [replace(stack(1)[0], number=30, stored=np.zeros((2, 9), np.uint16))]
    selection = select(read_case(put(tmp_path, [*stack(5), *small, *odd])))
    assert sorted(len(series.instances) for series in selection.series) == [4, 5]
    assert [(fate.file, fate.code) for fate in selection.others] == [("1-0030.dcm", "NotAVolume")]
