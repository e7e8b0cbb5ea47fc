"""Cases of a batch that cannot be read, were stopped or were joined by a stray file."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.manifest import Covers
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.storage.spool import Spool
from ctdeface_worker.batch.case import Batch, deface_case
from ctdeface_worker.batch.discovery import Case, find_cases
from ctdeface_worker.case.child_process import Run, WarmChild
from ctdeface_worker.case.run import Child
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.publishing.journal import find_report, record
from ctdeface_worker.report.model import State
from tests.support.service import stand_in_pipeline

NOBODY = 65534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be a user who may not read everything, also when the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def never() -> Run[CaseTask, CaseResult]:
    """Prepare a child that no test starts."""
    raise AssertionError


def batch_of(root: Path) -> Batch:
    """Return a batch with default settings below a folder."""
    spool = Spool.beside(root / "out", root / "state")
    spool.prepare(outbox_mode=0o750)
    stop = threading.Event()
    return Batch(
        spool=spool,
        options=DefaceOptions(),
        settings=Settings(),
        nifti_root=None,
        keep_work=False,
        redo=False,
        stop=stop,
    )


def test_a_case_that_cannot_be_looked_into_is_found_all_the_same() -> None:
    """Nothing is dropped silently: the case is brought to a report like any other."""
    with tempfile.TemporaryDirectory() as name:
        shut = Path(name) / "shut"
        shut.mkdir()
        (shut / "1.dcm").write_bytes(b"")
        Path(name).chmod(0o755)
        shut.chmod(0)
        with without_privileges():
            assert (
                find_cases(Path(name))
                == find_cases(Path(name), depth=2)
                == (Case(name="shut", folder=shut),)
            )
            with pytest.raises(ConfigurationError, match="cannot be read"):
                find_cases(shut)
        shut.chmod(0o700)


def test_a_case_that_is_gone_gets_a_report_unless_the_batch_is_stopping(tmp_path: Path) -> None:
    """A stop is no outcome: nothing is recorded about what it broke off."""
    batch = batch_of(tmp_path)
    gone = Case(name="gone", folder=tmp_path / "gone")
    child: Child = WarmChild(never)
    batch.stop.set()
    deface_case(batch, gone, child, lambda _: None)
    assert list(batch.spool.reports.iterdir()) == []
    batch.stop.clear()
    report = deface_case(batch, gone, child, lambda _: None).report
    assert report.result.reason == "the case cannot be read: No such file or directory"
    assert find_report(batch.spool, "gone", report.job_id) == report


def test_a_case_of_several_patients_names_the_stray_file_that_joined_them(tmp_path: Path) -> None:
    """The reason in the report tells which file moved the case boundary, and the remedy."""
    root = tmp_path / "scans"
    for folder in ("one", "two"):
        (root / folder).mkdir(parents=True)
        (root / folder / "1.dcm").write_bytes(b"")
    (root / "plan.txt").write_text("raise MixedPatients\n", encoding="utf-8")
    (root / "stray.dcm").write_bytes(b"")
    (case,) = find_cases(root)
    child: Child = WarmChild(stand_in_pipeline.prepare)
    batch = batch_of(tmp_path)
    report = deface_case(batch, case, child, lambda _: None).report
    child.close()
    assert report.result.code == "MixedPatients"
    assert report.result.reason.endswith(case.stray_warning)
    assert "stray.dcm is directly in scans" in report.result.reason
    assert find_report(batch.spool, "scans", report.job_id) == report


def test_what_release_0_1_0_released_is_not_repeated(tmp_path: Path) -> None:
    """Its job ids were made of modification times; the report lists the same content."""
    folder = tmp_path / "scans" / "one"
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"voxels")
    (folder / "plan.txt").write_text("release\n", encoding="utf-8")
    batch, case = batch_of(tmp_path), Case(name="one", folder=folder)
    child: Child = WarmChild(stand_in_pipeline.prepare)
    report = deface_case(batch, case, child, lambda _: None).report
    before = replace(
        report,
        job_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        manifest=replace(report.manifest, digest="d" * 64, covers=Covers.TIMES),
    )
    shutil.rmtree(batch.spool.reports / "one")
    record(batch.spool, before)
    run = deface_case(batch, case, child, lambda _: None)
    assert (run.report, run.resumed_from, run.replaced) == (before, State.DONE, False)
    (folder / "1.dcm").write_bytes(b"VOXELS")
    run = deface_case(batch, case, child, lambda _: None)
    child.close()
    assert (run.report.job_id == before.job_id, run.resumed_from, run.replaced) == (
        False,
        None,
        True,
    )


def test_a_case_changed_while_it_is_worked_on_is_refused(tmp_path: Path) -> None:
    """Also when size and modification time are as before."""
    folder = tmp_path / "scans" / "one"
    folder.mkdir(parents=True)
    (folder / "plan.txt").write_text("release\n", encoding="utf-8")
    batch, case = batch_of(tmp_path), Case(name="one", folder=folder)
    child: Child = WarmChild(stand_in_pipeline.prepare)

    def change(stage: str) -> None:
        if stage == "segment":
            status = (folder / "plan.txt").stat()
            (folder / "plan.txt").write_text("RELEASE\n", encoding="utf-8")
            os.utime(folder / "plan.txt", ns=(status.st_atime_ns, status.st_mtime_ns))

    report = deface_case(batch, case, child, change).report
    child.close()
    assert report.result.code == "InputChanged"
    assert list(batch.spool.outbox.iterdir()) == []


def test_a_missing_output_is_made_again_although_the_clock_went_back(tmp_path: Path) -> None:
    """The output decides whether a case is released, not the time in its report."""
    folder = tmp_path / "scans" / "one"
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"voxels")
    (folder / "plan.txt").write_text("release\n", encoding="utf-8")
    batch, case = batch_of(tmp_path), Case(name="one", folder=folder)
    child: Child = WarmChild(stand_in_pipeline.prepare)
    report = deface_case(batch, case, child, lambda _: None).report
    assert report.is_published
    record(batch.spool, replace(report, created_at="2099-01-01T00:00:00.000+00:00"))
    shutil.rmtree(batch.spool.outbox / "one")
    deface_case(batch, case, child, lambda _: None)
    child.close()
    assert (batch.spool.outbox / "one" / "1.dcm").is_file()
