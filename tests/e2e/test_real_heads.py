"""Real DICOM heads through the command, measured by the tests' own measure."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement

from ctdeface_worker.dicom import reader, selection
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.imaging.domain import Volume
from tests.support.measure.heads import HEADS
from tests.support.measure.skin import facial_skin

PHANTOM = "dcm_qa_ct_philips"
LEAST_REMOVED = {"dcm_qa_ct_ge": 0.985}
WHOLE_CAVITY_ML = {"visible_human_female": (1000, 1800), "stanford_cthead": (1000, 1800)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One run over all real DICOM cases."""

    root_in: Path
    root_out: Path
    exit_code: int

    def report(self, case: str) -> dict[str, Any]:
        """Read the report of a case."""
        (file,) = (
            self.root_out.with_name(f"{self.root_out.name}.ctdeface") / "reports" / case
        ).glob("*/report.json")
        content: dict[str, Any] = json.loads(file.read_bytes())
        return content

    def pairs(self, case: str) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
        """Yield input, output and report entry of every released file."""
        for entry in self.report(case)["result"]["files"]:
            if entry["fate"] == "released":
                yield (
                    self.root_in / case / entry["file"],
                    self.root_out / case / entry["file"],
                    entry,
                )


@pytest.fixture(scope="module")
def batch(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Run `ctdeface deface` once, with the segmenter that users get."""
    root = tmp_path_factory.mktemp("heads")
    for case in (*HEADS, PHANTOM):
        shutil.copytree(real_data / case, root / "in" / case)  # links out of IN are not followed
    command: list[str | Path] = [
        Path(sys.executable).with_name("ctdeface"),
        "deface",
        "-i",
        root / "in",
        "-o",
        root / "out",
    ]
    usual = {
        name: value for name, value in os.environ.items() if name != "CTDEFACE_DEFACE__SEGMENTER"
    }
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=usual)
    return Batch(root_in=root / "in", root_out=root / "out", exit_code=done.returncode)


def volume_of(folder: Path) -> Volume:
    """Load the one series of a case."""
    return volumes.load(selection.select(reader.read_case(folder)).series[0]).volume


def test_the_heads_are_released_and_the_phantom_without_soft_tissue_is_not(batch: Batch) -> None:
    """Four cases are in OUT; the fifth has a report, and the exit code shows a refusal."""
    assert sorted(path.name for path in batch.root_out.iterdir()) == sorted(HEADS)
    assert batch.exit_code == 1
    refused = batch.report(PHANTOM)
    assert refused["state"] == "refused"
    assert refused["result"]["code"] == "NothingToRelease"
    there = {
        path.relative_to(batch.root_in / PHANTOM).as_posix()
        for path in (batch.root_in / PHANTOM).rglob("*")
        if path.is_file()
    }
    assert {entry["file"] for entry in refused["result"]["files"]} == there
    assert all(entry["code"] and entry["reason"] for entry in refused["result"]["files"])


@pytest.mark.parametrize("case", HEADS)
def test_facial_skin_is_gone_by_the_measure_of_the_tests(batch: Batch, case: str) -> None:
    """At least 99 % of the frontal rays no longer meet skin, and few are too bright."""
    skin = facial_skin(
        volume_of(batch.root_in / case),
        volume_of(batch.root_out / case),
        HEADS[case],
        views=("front",),
    )
    assert skin.counted > 1000
    assert skin.removed >= LEAST_REMOVED.get(case, 0.99)
    assert skin.bright <= 0.05


@pytest.mark.parametrize("case", HEADS)
def test_header_bytes_are_identical_but_for_the_listed_differences(batch: Batch, case: str) -> None:
    """Apart from pixel data each file equals its input to the byte."""
    for before, after, entry in batch.pairs(case):
        assert hashlib.sha256(after.read_bytes()).hexdigest() == entry["output_sha256"]
        assert {(each["path"], each["kind"]) for each in entry["differences"]} <= {
            ("(7FE0,0010)", "changed")
        }
        assert head_and_tail(after) == head_and_tail(before)


@pytest.mark.parametrize("case", HEADS)
def test_stored_values_change_to_the_fill_and_the_brain_is_untouched(
    batch: Batch, case: str
) -> None:
    """Changed voxels have one value per slice, far below tissue, and none is in the cavity."""
    changed = 0
    for before, after, _ in batch.pairs(case):
        old, new = pydicom.dcmread(before), pydicom.dcmread(after)
        where = old.pixel_array != new.pixel_array
        changed += int(where.sum())
        hu = new.pixel_array[where] * float(new.RescaleSlope) + float(new.RescaleIntercept)
        assert np.unique(hu).size <= 1
        assert np.all(hu <= -800)
    assert changed > 1000
    (series,) = batch.report(case)["result"]["series"]
    checks = {check["name"]: check for check in series["checks"]}
    assert all(check["passed"] for check in checks.values())
    assert checks["brain_untouched"]["figure"] == 0
    low, high = WHOLE_CAVITY_ML.get(case, (0, 1800))
    assert low <= checks["cavity_found"]["figure"] <= high


def head_and_tail(file: Path) -> tuple[bytes, bytes]:
    """Return the bytes before and after the value of the pixel data."""
    raw = pydicom.dcmread(file).get_item("PixelData")
    assert isinstance(raw, RawDataElement)
    content = file.read_bytes()
    return content[: raw.value_tell], content[raw.value_tell + raw.length :]
