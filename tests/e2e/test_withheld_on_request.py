"""Series excluded by the user are withheld, and the others are released."""

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.phantom.dicom import PLAIN
from tests.support.cases import write_small_case
from tests.support.ct_files import put, stack
from tests.support.runs import run_case, snapshot


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A head, and beside it a series that holds the case back: it has a gap."""
    folder = tmp_path / "case"
    write_small_case(folder)
    gap = [file for file in stack(7) if file.number != 4]
    files = [
        replace(
            file,
            series="77",
            elements={
                **file.elements,
                "PatientID": PLAIN.patient_id,
                "PatientName": PLAIN.name,
            },
        )
        for file in gap
    ]
    put(folder / "gap", files)
    return folder


def series_of(file: Path) -> str:
    """SeriesInstanceUID of a file."""
    return str(pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID)


def test_a_series_that_is_left_out_no_longer_holds_back_the_others(
    case: Path, tmp_path: Path
) -> None:
    """The head is released; all files of the other series are withheld and not staged."""
    done = run_case(
        case, tmp_path / "out", DefaceOptions(withhold=(series_of(next((case / "gap").iterdir())),))
    )
    assert done.result.released, done.result.reason
    assert done.outputs == {path.name for path in case.glob("*.dcm")}
    assert {
        (file.fate, file.code) for file in done.result.files if file.file.startswith("gap/")
    } == {(Fate.WITHHELD, "WithheldOnRequest")}


def test_a_case_of_which_everything_is_left_out_releases_nothing(
    case: Path, tmp_path: Path
) -> None:
    """It is refused, and the staging folder is empty."""
    series = {series_of(path) for path in case.rglob("*.dcm")}
    done = run_case(case, tmp_path / "out", DefaceOptions(withhold=tuple(series)))
    assert (done.result.released, done.result.code) == (False, "NothingToRelease")
    assert {one.code for one in done.result.series} == {"WithheldOnRequest"}
    assert snapshot(done.staged) == {}


def test_a_series_that_is_not_in_the_case_refuses_it(case: Path, tmp_path: Path) -> None:
    """A slip of the pen must not release what was to be left out."""
    done = run_case(case, tmp_path / "out", DefaceOptions(withhold=("1.2.3",)))
    assert (done.result.released, done.result.code) == (False, "UnknownSeries")
    assert snapshot(done.staged) == {}
