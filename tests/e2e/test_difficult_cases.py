"""Files of real archives get the right code or the listed difference."""

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from ctdeface_shared.jobs.options import DefaceOptions, HeaderPolicy, OnSeriesFailure
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.phantom.dicom import PLAIN, uid
from tests.support.cases import (
    add_icon,
    add_localizer,
    add_overlay,
    add_second_patient,
    add_secondary_capture,
    add_strangers,
    middle_slice,
    small_head,
    truncate,
    write_small_case,
)
from tests.support.ct_files import CtFile, put, stack
from tests.support.runs import Run, run_case, snapshot, stored

DEFLATED = "1.2.840.10008.1.2.1.99"
SYNTAXES = (
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DEFLATED),
    *(RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless),
)
WITHHOLD = DefaceOptions(on_series_failure=OnSeriesFailure.WITHHOLD)
ANNOTATE = DefaceOptions(headers=HeaderPolicy.ANNOTATE)


def beside(case: Path, name: str, files: Iterable[CtFile]) -> None:
    """Put a small series of the same patient beside the head."""
    put(
        case / name,
        [
            replace(
                file,
                series=str(sum(name.encode())),
                elements={
                    **file.elements,
                    "PatientID": PLAIN.patient_id,
                    "PatientName": PLAIN.name,
                },
            )
            for file in files
        ],
    )


def changed(
    file: Path, change: Callable[[pydicom.Dataset], None], target: Path | None = None
) -> None:
    """Change a file's data set and save it."""
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(target or file, enforce_file_format=True)


def again(dataset: pydicom.Dataset) -> None:
    """Make a data set another instance."""
    dataset.SOPInstanceUID = uid(dataset.SOPInstanceUID, "again")


def unlike(dataset: pydicom.Dataset, *, sop_class: str, frames: int | None = None) -> None:
    """Make a data set an object of another class, in a series of its own."""
    again(dataset)
    dataset.SOPClassUID, dataset.SeriesInstanceUID = sop_class, uid(sop_class)
    if frames:
        dataset.NumberOfFrames = frames


def relabeled(file: Path, syntax: str, frame: bytes) -> None:
    """Replace a file's pixels by a compressed frame in a syntax."""
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(file, enforce_file_format=True)


def add_directory(file: Path) -> None:
    """Add a DICOMDIR."""
    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = (
        MediaStorageDirectoryStorage,
        uid("directory"),
    )
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.FileSetID = "ARCHIVE"
    made.save_as(file, enforce_file_format=True)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A head with everything beside it that archives hold, and failed series withheld."""
    folder = tmp_path_factory.mktemp("archive")
    case = folder / "case"
    files = write_small_case(case)
    add_icon(files[45])
    add_overlay(files[46])
    changed(files[40], again, case / "twin.dcm")
    add_localizer(case)
    add_secondary_capture(case)
    add_strangers(case)
    add_directory(case / "DICOMDIR")
    changed(files[50], lambda dataset: unlike(dataset, sop_class="1.2.3.4"), case / "unknown.dcm")
    changed(
        files[50],
        lambda dataset: unlike(dataset, sop_class=EnhancedCTImageStorage, frames=2),
        case / "enhanced.dcm",
    )
    beside(
        case,
        "dynamic",
        [
            *stack(4),
            *(replace(file, number=file.number + 9, stored=file.stored + 1) for file in stack(4)),
        ],
    )
    beside(case, "gap", [file for file in stack(7) if file.number != 4])
    beside(case, "document", stack(4))
    noise = np.random.default_rng(4).bytes(20000)
    for file in sorted((case / "document").iterdir())[:1]:
        changed(file, lambda dataset: dataset.add_new(0x00420011, "OB", noise))
    beside(
        case,
        "bits",
        stack(4, bits_stored=12, stored=np.full((6, 8), 0x8001, np.uint16), intercept=-1100.0),
    )
    beside(case, "jpeg", stack(4))
    for file in (case / "jpeg").iterdir():
        relabeled(file, JPEGExtended12Bit, b"\xff\xd8\xff\xd9")
    return run_case(case, folder, WITHHOLD)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a head whose neighboring slices have different transfer syntaxes."""
    folder = tmp_path_factory.mktemp("mixture")
    (folder / "case").mkdir()
    for turn, syntax in enumerate(SYNTAXES):
        plain = syntax == JPEGLosslessSV1  # pydicom writes none
        variation = replace(PLAIN, transfer_syntax=ExplicitVRLittleEndian if plain else syntax)
        for file in write_small_case(folder / syntax, variation)[turn :: len(SYNTAXES)]:
            if plain:
                compress_lossless(file)
            file.rename(folder / "case" / file.name)
    return run_case(folder / "case", folder)


def compress_lossless(file: Path) -> None:
    """Compress a file in place as JPEG Lossless SV1 with GDCM."""
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(os.fspath(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(os.fspath(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def fates(run: Run, folder: str) -> set[tuple[Fate, str]]:
    """Fates and codes of the files of a folder inside the case."""
    return {
        (file.fate, file.code) for file in run.result.files if file.file.startswith(f"{folder}/")
    }


def test_the_head_is_released_and_nothing_else_comes_out(archive: Run) -> None:
    """Ninety slices and the twin of one of them; the input is as it was."""
    assert archive.result.released, archive.result.reason
    assert archive.outputs == {*(f"IM{number:04d}.dcm" for number in range(1, 91)), "twin.dcm"}
    assert {file.file for file in archive.result.files} == snapshot(archive.source).keys()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SCOUT.dcm", "Localizer"),
        ("CAPTURE.dcm", "UnsupportedObject"),
        ("unknown.dcm", "UnsupportedObject"),
        ("enhanced.dcm", "UnsupportedObject"),
        ("DICOMDIR", "DicomDir"),
        ("notes.txt", "NotDicom"),
        ("Thumbs.db", "NotDicom"),
    ],
)
def test_what_is_no_slice_is_withheld_with_its_code(archive: Run, name: str, code: str) -> None:
    """Listed, with a reason that a person understands."""
    file = archive.file(name)
    assert (file.fate, file.code, file.output_sha256) == (Fate.WITHHELD, code, "")
    assert len(file.reason.split()) > 1


@pytest.mark.parametrize(
    ("folder", "fate", "code", "reason"),
    [
        ("dynamic", Fate.WITHHELD, "RepeatedPositions", "different images at the same position"),
        ("gap", Fate.FAILED, "MissingSlices", "slices are missing between 4.00 mm and 8.00 mm"),
        ("document", Fate.WITHHELD, "UnsupportedObject", "most of them in (0042,0011)"),
        (
            "bits",
            Fate.WITHHELD,
            "UnsupportedObject",
            "unused bits of the pixel data hold values",
        ),
        ("jpeg", Fate.WITHHELD, "UnsupportedTransferSyntax", "JPEG Extended"),
    ],
)
def test_series_that_cannot_be_defaced_are_withheld_whole(
    archive: Run, folder: str, fate: Fate, code: str, reason: str
) -> None:
    """Repeated positions, a gap, an attached document, an overlay in unused bits, lossy JPEG."""
    assert fates(archive, folder) == {(fate, code)}
    assert any(
        reason in file.reason for file in archive.result.files if file.file.startswith(f"{folder}/")
    )


def test_icon_and_overlay_are_blanked_and_listed_and_the_rest_of_the_file_stays(
    archive: Run,
) -> None:
    """Same length, same place; besides the pixels they are the only bytes that differ."""
    for name, path in (("IM0046.dcm", "(0088,0200)[0].(7FE0,0010)"), ("IM0047.dcm", "(6000,3000)")):
        assert path in {difference.path for difference in archive.file(name).differences}
        before, after = (
            pydicom.dcmread(archive.source / name),
            pydicom.dcmread(archive.staged / name),
        )
        for dataset in (before, after):
            dataset.PixelData = b""
        assert before != after
        for dataset in (before, after):
            for element in (
                [dataset.IconImageSequence[0][0x7FE00010]]
                if "IconImageSequence" in dataset
                else [dataset[0x60003000]]
            ):
                assert any(element.value) is (dataset is before)
                element.value = b""
        assert before == after
        assert (archive.source / name).stat().st_size == (archive.staged / name).stat().st_size


def test_equal_pixels_at_one_position_are_both_defaced(archive: Run) -> None:
    """A copy of a slice under another SOPInstanceUID does not bypass the mask."""
    one, twin = (
        next(pair for pair in archive.released() if pair.name == name)
        for name in ("IM0041.dcm", "twin.dcm")
    )
    assert one.changed.any()
    assert np.array_equal(stored(one.after), stored(twin.after))
    assert one.after.SOPInstanceUID != twin.after.SOPInstanceUID == twin.before.SOPInstanceUID


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_is_defaced_and_written_in_kind(mixture: Run, syntax: str) -> None:
    """Only masked voxels change; all other bytes or elements stay."""
    assert mixture.result.released, mixture.result.reason
    pairs = [
        pair for pair in mixture.released() if pair.before.file_meta.TransferSyntaxUID == syntax
    ]
    assert len(pairs) >= 11
    assert any(pair.changed.any() for pair in pairs)
    for pair in pairs:
        assert pair.after.file_meta.TransferSyntaxUID == syntax
        number = int(pair.name[2:6]) - 1
        assert not np.any(pair.changed & small_head().brain[number])
        assert len(np.unique(stored(pair.after)[pair.changed])) <= 1
        before, after = pair.before, pair.after
        del before.PixelData
        del after.PixelData
        assert before == after
        assert before.file_meta == after.file_meta


def test_annotated_instances_are_consistent_derived_ones(annotated: Run) -> None:
    """New SOP and series UIDs; study, frame of reference and identity stay."""
    pairs = list(annotated.released())
    assert len(pairs) == 90
    assert (
        len(
            {pair.after.SOPInstanceUID for pair in pairs}
            | {pair.before.SOPInstanceUID for pair in pairs}
        )
        == 180
    )
    (series,) = {pair.after.SeriesInstanceUID for pair in pairs}
    assert series != pairs[0].before.SeriesInstanceUID
    for pair in pairs:
        assert pair.after.file_meta.MediaStorageSOPInstanceUID == pair.after.SOPInstanceUID
        assert pair.after.ImageType[0] == "DERIVED"
        assert "PatientIdentityRemoved" not in pair.after
        for keyword in (
            "StudyInstanceUID",
            "FrameOfReferenceUID",
            "PatientID",
            "PatientName",
            "ImagePositionPatient",
            "RescaleIntercept",
        ):
            assert pair.after[keyword] == pair.before[keyword]
        listed = {difference.path for difference in annotated.file(pair.name).differences}
        assert {"(0008,0018)", "(0020,000E)", "(0008,0008)", "(0028,0302)"} <= listed


def test_an_unreadable_file_of_unknown_series_refuses_even_where_series_may_be_withheld(
    tmp_path: Path,
) -> None:
    """It could be a slice of the series that would be released."""
    truncate(write_small_case(tmp_path / "case")[-1])
    run = run_case(tmp_path / "case", tmp_path, WITHHOLD)
    assert (run.result.released, run.result.code) == (False, "UnreadableInstance")
    assert "IM0090.dcm" in run.result.reason
    assert {file.fate for file in run.result.files} == {Fate.FAILED, Fate.WITHHELD}


def test_two_patients_in_one_case_are_refused_whole(tmp_path: Path) -> None:
    """Every file with the same code, nothing staged."""
    write_small_case(tmp_path / "case")
    add_second_patient(tmp_path / "case")
    run = run_case(tmp_path / "case", tmp_path)
    assert (run.result.released, run.result.code, run.outputs) == (False, "MixedPatients", set())
    assert {(file.fate, file.code) for file in run.result.files} == {(Fate.FAILED, "MixedPatients")}


def test_a_missing_slice_refuses_the_case(tmp_path: Path) -> None:
    """The reason says where the gap is."""
    write_small_case(tmp_path / "case")
    middle_slice(tmp_path / "case").unlink()
    run = run_case(tmp_path / "case", tmp_path)
    assert (run.result.released, run.result.code, run.outputs) == (False, "MissingSlices", set())
    assert " mm" in run.result.reason


def test_a_hole_in_the_numbers_where_the_gap_is_wider_refuses_the_case(tmp_path: Path) -> None:
    """Where thickness changes, the gap alone would not show a missing slice."""
    thin = [replace(file, elements={"SliceThickness": 4}) for file in stack(6, spacing=4.0)]
    thick = [
        CtFile(number=8 + k, position=(0, 0, 27.0 + 7.0 * k), elements={"SliceThickness": 7})
        for k in range(6)
    ]
    run = run_case(put(tmp_path / "case", [*thin, *thick]), tmp_path)
    assert (run.result.released, run.result.code, run.outputs) == (False, "MissingSlices", set())


def test_an_overlay_in_the_unused_bits_of_compressed_pixels_is_seen(tmp_path: Path) -> None:
    """Words decoded from RLE keep all bits, so an overlay in unused bits is found."""
    put(
        tmp_path / "case",
        stack(4, bits_stored=12, stored=np.full((6, 8), 0x4001, np.uint16), intercept=-1100.0),
    )
    for file in (tmp_path / "case").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        dataset.save_as(file, enforce_file_format=True)
        assert {
            int(value)
            for value in np.unique(pixel_array(file, raw=True, correct_unused_bits=False))
        } == {0x4001}
    run = run_case(tmp_path / "case", tmp_path)
    assert {(file.fate, file.code) for file in run.result.files} == {
        (Fate.WITHHELD, "UnsupportedObject")
    }
    assert (run.result.code, run.outputs) == ("NothingToRelease", set())


def test_odd_header_values_are_not_quoted_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Warnings of pydicom may name the patient; any warning fails the suite."""
    odd: dict[str, Any] = {"ReferencedImageSequence": [pydicom.Dataset()]}
    put(tmp_path / "case", [replace(file, elements=odd) for file in stack(4)])
    for file in (tmp_path / "case").iterdir():
        content = file.read_bytes()
        at = content.index(b"\x20\x00\x13\x00IS")
        file.write_bytes(content[: at + 8] + b"X?" + content[at + 10 :])
    run = run_case(tmp_path / "case", tmp_path, ANNOTATE)
    assert not run.result.released
    assert len(run.result.files) == 4
    assert capfd.readouterr().err == ""


def test_odd_header_values_of_a_released_case_are_not_quoted_either(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also the gate's reading of the output keeps such warnings to itself."""
    write_small_case(tmp_path / "case")
    for file in (tmp_path / "case").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SpecificCharacterSet = "ISO_IR NONSENSE"
        with warnings.catch_warnings(action="ignore"):
            dataset.save_as(file)
    run = run_case(tmp_path / "case", tmp_path)
    assert run.result.released
    assert capfd.readouterr().err == ""
