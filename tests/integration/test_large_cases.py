"""Cases that are too large are refused with a clear reason, and the others go on."""

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.settings.sections import LimitsSection, WorkSection
from ctdeface_worker.batch.case import Batch, deface_case
from ctdeface_worker.batch.discovery import find_cases
from ctdeface_worker.case.child_process import OnStage, Run, WarmChild
from ctdeface_worker.case.run import Child
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from tests.integration.test_batch_case import batch_of
from tests.support.ct_files import put, stack
from tests.support.service import stand_in_pipeline
from tests.unit.test_read_limits import bomb

LIMITS = LimitsSection(files=20, case_gb=0.001, file_gb=0.0005, depth=5, path_bytes=200)


def reading_pipeline() -> Run[CaseTask, CaseResult]:
    """Read cases as the real pipeline does, and release them with the stand-in."""
    from ctdeface_worker.dicom.reader import read_case

    release = stand_in_pipeline.prepare()

    def run(task: CaseTask, on_stage: OnStage) -> CaseResult:
        read_case(task.source, task.limits)
        return release(task, on_stage)

    return run


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """One warm child for all tests."""
    made: Child = WarmChild(reading_pipeline)
    yield made
    made.close()


def batch_with(root: Path, **settings: LimitsSection | WorkSection) -> Batch:
    """Return a batch with other settings below a folder."""
    batch = batch_of(root)
    return replace(batch, settings=batch.settings.model_copy(update=dict(settings)))


def outcomes(batch: Batch, root: Path, child: Child) -> dict[str, str]:
    """Run all cases of a folder; return the code of each, empty when released."""
    return {
        case.name: deface_case(batch, case, child, lambda _: None).report.result.code
        for case in find_cases(root)
    }


def make_case(root: Path, name: str) -> Path:
    """Make a small case that the stand-in releases."""
    folder = put(root / name, stack(3))
    (folder / "plan.txt").write_text("release\n", encoding="utf-8")
    return folder


def test_a_case_above_each_limit_is_refused_and_the_others_are_released(
    tmp_path: Path, child: Child
) -> None:
    """Files, bytes, one file, depth and path length."""
    root = tmp_path / "scans"
    for name in ("a-good", "z-good"):
        make_case(root, name)
    for number in range(30):
        (make_case(root, "many") / str(number)).touch()
    for number in range(4):
        (make_case(root, "heavy") / str(number)).write_bytes(bytes(400_000))
    os.truncate(make_case(root, "one") / "plan.txt", 50 * 10**9)
    (make_case(root, "deep") / "/".join("abcdefghij")).mkdir(parents=True)
    (make_case(root, "long") / ("x" * 201)).touch()

    codes = outcomes(batch_with(tmp_path, limits=LIMITS), root, child)

    refused = dict.fromkeys(("many", "heavy", "one", "deep", "long"), "TooLarge")
    assert codes == {"a-good": "", "z-good": "", **refused}


def test_folders_nested_beyond_any_stack_are_refused(tmp_path: Path, child: Child) -> None:
    """Two thousand levels once ended the whole batch."""
    root = tmp_path / "scans"
    make_case(root, "a-good")
    descriptor = os.open(make_case(root, "deep"), os.O_RDONLY)
    for _ in range(1900):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)

    try:
        codes = outcomes(batch_with(tmp_path), root, child)
    finally:
        subprocess.run(["rm", "-rf", root / "deep"], check=True)  # shutil.rmtree is recursive

    assert codes == {"a-good": "", "deep": "TooLarge"}


def test_a_deflated_file_that_grows_without_bound_costs_its_case_only(
    tmp_path: Path, child: Child
) -> None:
    """It is refused at the first attempt, in the same child that releases the next case."""
    root = tmp_path / "scans"
    (make_case(root, "bomb") / "9.dcm").write_bytes(bomb(2200))
    make_case(root, "good")

    codes = outcomes(batch_with(tmp_path), root, child)

    assert codes == {"bomb": "TooLarge", "good": ""}
    assert child.restarts == 0
    assert child.peak_bytes < 1_000_000_000


def test_a_case_that_does_not_fit_into_the_memory_is_refused_before_it_is_tried(
    tmp_path: Path, child: Child
) -> None:
    """Without being killed for it, and without further attempts."""
    root = tmp_path / "scans"
    make_case(root, "case")
    batch = batch_with(tmp_path, work=WorkSection(memory_limit_gb=1e-6))

    assert outcomes(batch, root, child) == {"case": "TooLarge"}
    assert threading.active_count() < 10
