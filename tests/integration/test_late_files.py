"""Drops under the name of an earlier case, with a worker around a stand-in pipeline."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.jobs.taken import TakenCase, new_record
from ctdeface_worker.report.model import CaseReport, State
from ctdeface_worker.service.consumer import WorkerSlot, handle
from tests.support.ct_files import ROOT, CtFile
from tests.support.service.slots import SlotOptions, make_slot
from tests.support.service.spools import reports
from tests.support.service.stand_in_pipeline import reversed_bytes
from tests.support.service.watcher import RunningWatcher, wait_for

PHANTOM: Mapping[str, str] = MappingProxyType({})
OTHER = MappingProxyType(
    {"PatientBirthDate": "19800820", "PatientSex": "M", "StudyInstanceUID": f"{ROOT}9"}
)
"""Another patient with the same PatientID and name."""
NEXT_STUDY = MappingProxyType({"StudyInstanceUID": f"{ROOT}9"})


@contextmanager
def worker_of(watcher: RunningWatcher) -> Iterator[WorkerSlot]:
    """Run a worker slot on the watcher's queue and spool."""
    options = SlotOptions(originals=watcher.originals)
    made = make_slot(watcher.spool, MemoryBroker(watcher.broker.queue), options)
    yield made
    made.resources.child.close()


def work(slot: WorkerSlot, jobs: int = 1) -> None:
    """Process a number of jobs."""
    for _ in range(jobs):
        delivery = slot.broker.receive(30.0)
        assert delivery is not None
        slot.broker.settle(delivery, handle(slot, delivery).settlement)


def released(watcher: RunningWatcher, case: str) -> dict[str, bytes]:
    """Return the released files of a case."""
    folder = watcher.spool.outbox / case
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def slices(*numbers: int, patient: Mapping[str, str] = PHANTOM) -> dict[str, bytes]:
    """Return the files of some slices of a patient."""
    return {
        f"{number}.dcm": CtFile(number=number, elements=dict(patient)).content for number in numbers
    }


def drop(watcher: RunningWatcher, case: str, files: Mapping[str, bytes], plan: str = "") -> Path:
    """Drop files under the name of a case, with a plan for the pipeline if there is one."""
    hidden = watcher.spool.inbox / f".{case}"
    hidden.mkdir()
    for name, content in files.items():
        (hidden / name).write_bytes(content)
    if plan:
        (hidden / "plan.txt").write_text(f"{plan}\n", encoding="utf-8")
    return hidden.rename(watcher.spool.inbox / case)


def is_quarantined(watcher: RunningWatcher, name: str) -> bool:
    """Return whether the quarantine holds a file of the case `a`."""
    return any(watcher.spool.quarantine.glob(f"a/*/originals/{name}"))


def last_report(watcher: RunningWatcher, case: str) -> CaseReport:
    """Return the newest report of a case."""
    return max(reports(watcher.spool, case), key=lambda report: report.created_at)


@pytest.mark.parametrize("originals", [Originals.KEEP, Originals.ARCHIVE])
def test_a_late_slice_leads_to_a_second_job_over_the_whole_case(
    watcher: RunningWatcher, originals: Originals
) -> None:
    """Kept originals are there still, archived ones are copied; the archive stays as it was."""
    watcher.originals = originals
    drop(watcher, "a", slices(1), "release")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        assert set(released(watcher, "a")) == {"1.dcm", "plan.txt"}
        if originals is Originals.KEEP:
            (watcher.spool.inbox / "a" / "2.dcm").write_bytes(slices(2)["2.dcm"])
        else:
            drop(watcher, "a", slices(2))
        work(worker)
    assert released(watcher, "a") == {
        name: reversed_bytes(content)
        for name, content in {**slices(1, 2), "plan.txt": b"release\n"}.items()
    }
    first, second = sorted(reports(watcher.spool, "a"), key=lambda report: report.created_at)
    assert (first.manifest.files, second.manifest.files, second.state) == (2, 3, State.DONE)
    if originals is Originals.ARCHIVE:
        kept = watcher.spool.archive / "originals" / "a"
        assert {path.name for path in (kept / first.job_id).iterdir()} == {"1.dcm", "plan.txt"}
        assert {path.name for path in (kept / second.job_id).iterdir()} == {
            "1.dcm",
            "2.dcm",
            "plan.txt",
        }
        assert not list(watcher.spool.inbox.iterdir())
    assert not watcher.jobs
    wait_for(lambda: not list(watcher.spool.taken.iterdir()))


def test_a_late_slice_whose_originals_were_deleted_is_quarantined_and_the_output_stays(
    watcher: RunningWatcher,
) -> None:
    """Both times; the whole case dropped again is a new job."""
    watcher.originals = Originals.DELETE
    drop(watcher, "a", slices(1), "release")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        before = released(watcher, "a")
        for number in (8, 9):
            drop(watcher, "a", slices(number))
            wait_for(partial(is_quarantined, watcher, f"{number}.dcm"))
        assert released(watcher, "a") == before
        refusals = [
            CaseReport.from_json(path.read_bytes())
            for path in watcher.spool.quarantine.glob("a/*/report.json")
        ]
        assert [report.result.code for report in refusals] == ["LateFiles", "LateFiles"]
        assert not watcher.jobs
        drop(watcher, "a", slices(1, 2), "release")
        work(worker)
    assert set(released(watcher, "a")) == {"1.dcm", "2.dcm", "plan.txt"}


@pytest.mark.parametrize("originals", [Originals.ARCHIVE, Originals.DELETE])
@pytest.mark.parametrize("other", [OTHER, NEXT_STUDY], ids=["patient", "study"])
def test_another_patient_or_study_under_the_same_names_is_a_case_of_its_own(
    watcher: RunningWatcher, originals: Originals, other: Mapping[str, str]
) -> None:
    """With fewer files, and late files of both; nothing of one comes to the other."""
    watcher.originals = originals
    drop(watcher, "a", slices(1, 2, 3), "release")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        before = released(watcher, "a")
        drop(watcher, "a", slices(1, 2, patient=other), "release")
        work(worker)
        assert released(watcher, "a") == before
        drop(watcher, "a", slices(1, 2, 4, patient=other), "release")
        work(worker)
        drop(watcher, "a", slices(1, 2, 3, 4), "release")
        work(worker)
    whole = {"plan.txt": b"release\n"}
    assert released(watcher, "a-2") == {
        name: reversed_bytes(content)
        for name, content in (slices(1, 2, 4, patient=other) | whole).items()
    }
    assert released(watcher, "a") == {
        name: reversed_bytes(content) for name, content in (slices(1, 2, 3, 4) | whole).items()
    }
    assert {path.name for path in watcher.spool.outbox.iterdir()} == {"a", "a-2"}
    wait_for(lambda: watcher.seen.notes.get("a", "").endswith("a case of its own: a-2"))


def test_the_same_files_and_more_replace_the_output(watcher: RunningWatcher) -> None:
    """Other pixels of the same study and patient, too."""
    drop(watcher, "a", slices(1, 2), "release")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        corrected = {"1.dcm": CtFile(number=1, slope=2.0).content}
        drop(watcher, "a", slices(2) | corrected, "release")
        work(worker)
    assert released(watcher, "a")["1.dcm"] == reversed_bytes(corrected["1.dcm"])
    assert not (watcher.spool.outbox / "a-2").exists()


def test_content_that_comes_back_after_other_content_is_released_again(
    watcher: RunningWatcher,
) -> None:
    """It is the same job as the first time, and its files are put away like then."""
    corrected = {"1.dcm": CtFile(number=1, slope=2.0).content}
    watcher.start()
    with worker_of(watcher) as worker:
        for files in (slices(1), corrected, slices(1)):
            drop(watcher, "a", files, "release")
            work(worker)
            assert released(watcher, "a")["1.dcm"] == reversed_bytes(files["1.dcm"])
            wait_for(lambda: not list(watcher.spool.taken.iterdir()))
    assert len(list(watcher.spool.archive.glob("originals/a/*/1.dcm"))) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop as several users")
def test_the_same_patient_dropped_by_another_user_is_a_case_of_its_own(
    watcher: RunningWatcher,
) -> None:
    """It does not wait for the first one's job, and the name stays with the first one."""
    drop(watcher, "a", slices(1), "release")
    watcher.start()
    wait_for(lambda: [job.case for job in watcher.jobs] == ["a"])
    hidden = drop(watcher, ".a", slices(2), "release")
    for path in (hidden, *hidden.iterdir()):
        os.chown(path, 4001, -1)
    hidden.rename(watcher.spool.inbox / "a")
    wait_for(lambda: [job.case for job in watcher.jobs] == ["a", "a-2"])
    assert [job.owner for job in watcher.jobs] == [0, 4001]
    with worker_of(watcher) as worker:
        work(worker, jobs=2)
    assert set(released(watcher, "a")) == {"1.dcm", "plan.txt"}
    assert set(released(watcher, "a-2")) == {"2.dcm", "plan.txt"}


def test_a_drop_under_the_name_of_a_case_in_work_waits_for_its_end(watcher: RunningWatcher) -> None:
    """One job of a case at a time; also for a second patient, who cannot be compared before."""
    drop(watcher, "a", slices(1), "release")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    drop(watcher, "a", slices(2))
    wait_for(lambda: not list(watcher.spool.inbox.iterdir()))
    wait_for(lambda: watcher.seen.waiting == ("a",))
    assert len(watcher.jobs) == 1
    with worker_of(watcher) as worker:
        work(worker, jobs=2)
    assert set(released(watcher, "a")) == {"1.dcm", "2.dcm", "plan.txt"}


def test_a_late_slice_of_a_refused_case_is_added_to_its_quarantined_originals(
    watcher: RunningWatcher,
) -> None:
    """The case that was incomplete is whole now."""
    drop(watcher, "a", slices(1), "refuse")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        assert last_report(watcher, "a").state is State.REFUSED
        drop(watcher, "a", slices(2))
        work(worker)
    report = last_report(watcher, "a")
    assert {file.file for file in report.result.files} == {"1.dcm", "2.dcm", "plan.txt"}


def test_a_resent_part_of_a_case_counts_as_late_and_loses_nothing(watcher: RunningWatcher) -> None:
    """The same bytes under the same name contradict nothing; the whole case is known then."""
    drop(watcher, "a", slices(1, 2), "release")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        drop(watcher, "a", slices(1))
        wait_for(lambda: "same content" in watcher.seen.notes.get("a", ""))
    assert not watcher.jobs
    assert set(released(watcher, "a")) == {"1.dcm", "2.dcm", "plan.txt"}
    assert not list(watcher.spool.taken.iterdir())


def test_a_kept_case_that_changes_while_its_job_runs_has_a_second_job(
    watcher: RunningWatcher,
) -> None:
    """The first job works on its own copy."""
    watcher.originals = Originals.KEEP
    folder = drop(watcher, "a", slices(1), "release")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    (folder / "2.dcm").write_bytes(slices(2)["2.dcm"])
    wait_for(lambda: watcher.seen.waiting == ("a",))
    with worker_of(watcher) as worker:
        work(worker)
        assert set(released(watcher, "a")) == {"1.dcm", "plan.txt"}
        work(worker)
    assert set(released(watcher, "a")) == {"1.dcm", "2.dcm", "plan.txt"}


@pytest.mark.parametrize("copied", [0, 1, 2])
def test_a_watcher_killed_while_it_puts_a_case_together_goes_on(
    watcher: RunningWatcher, copied: int
) -> None:
    """Before the first file, within one, or behind all of them."""
    drop(watcher, "a", slices(1), "release")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        watcher.end()
        record = replace(new_record("a", "a"), owner=os.getuid())
        taken = TakenCase.create(watcher.spool, record)
        taken.files.mkdir()
        for name, content in slices(2, 3).items():
            (taken.files / name).write_bytes(content)
        (originals,) = (watcher.spool.archive / "originals/a").iterdir()
        for name in ("1.dcm", "plan.txt")[:copied]:
            (taken.files / name).write_bytes((originals / name).read_bytes())
        if copied < 2:
            (taken.files / ".plan.txt.part").write_bytes(b"rel")
        watcher.start()
        work(worker)
    assert set(released(watcher, "a")) == {"1.dcm", "2.dcm", "3.dcm", "plan.txt"}
    assert not list(watcher.spool.inbox.iterdir())
