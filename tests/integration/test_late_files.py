"""Late files, with a real worker around a stand-in pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.jobs.options import Originals
from ctdeface_watcher.inbox import late_files
from ctdeface_worker.report.model import CaseReport, State
from ctdeface_worker.service.consumer import WorkerSlot, handle
from tests.support.service.slots import SlotOptions, make_slot
from tests.support.service.spools import drop, reports
from tests.support.service.stand_in_pipeline import reversed_bytes
from tests.support.service.watcher import RunningWatcher, wait_for


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


def drop_late(
    watcher: RunningWatcher, case: str, name: str = "late.dcm", content: bytes = b"late"
) -> Path:
    """Drop one more file under the name of a case."""
    (watcher.spool.inbox / case).mkdir(exist_ok=True)
    (watcher.spool.inbox / case / name).write_bytes(content)
    return watcher.spool.inbox / case / name


def last_report(watcher: RunningWatcher, case: str) -> CaseReport:
    """Return the newest report of a case."""
    return max(reports(watcher.spool, case), key=lambda report: report.created_at)


@pytest.mark.parametrize("originals", [Originals.KEEP, Originals.ARCHIVE])
def test_a_late_slice_leads_to_a_second_job_over_the_whole_case(
    watcher: RunningWatcher, originals: Originals
) -> None:
    """Kept originals are there still, archived ones are put back; the archive stays as it was."""
    watcher.originals = originals
    plan = (drop(watcher.spool, "a") / "plan.txt").read_bytes()
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        assert set(released(watcher, "a")) == {"0.dcm", "plan.txt"}
        drop_late(watcher, "a")
        work(worker)
    assert set(released(watcher, "a")) == {"0.dcm", "plan.txt", "late.dcm"}
    assert released(watcher, "a")["plan.txt"] == reversed_bytes(plan)
    first, second = sorted(reports(watcher.spool, "a"), key=lambda report: report.created_at)
    assert (first.manifest.files, second.manifest.files, second.state) == (2, 3, State.DONE)
    if originals is Originals.ARCHIVE:
        kept = watcher.spool.archive / "originals" / "a"
        assert {path.name for path in (kept / first.job_id).iterdir()} == {"0.dcm", "plan.txt"}
        assert {path.name for path in (kept / second.job_id).iterdir()} == {
            "0.dcm",
            "plan.txt",
            "late.dcm",
        }
        assert not list(watcher.spool.inbox.iterdir())
    assert not watcher.jobs


def test_a_late_slice_whose_originals_were_deleted_is_quarantined_and_the_output_stays(
    watcher: RunningWatcher,
) -> None:
    """Both times; the whole case dropped again is a new job."""
    watcher.originals = Originals.DELETE
    drop(watcher.spool, "a")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        before = released(watcher, "a")
        for name in ("late.dcm", "later.dcm"):
            file = drop_late(watcher, "a", name)
            wait_for(lambda gone=file: not gone.exists())  # type: ignore[misc]  # bound per loop
        assert released(watcher, "a") == before
        assert {path.name for path in watcher.spool.quarantine.glob("a/*/originals/*")} == {
            "late.dcm",
            "later.dcm",
        }
        refusals = [
            CaseReport.from_json(path.read_bytes())
            for path in watcher.spool.quarantine.glob("a/*/report.json")
        ]
        assert [report.result.code for report in refusals] == ["LateFiles", "LateFiles"]
        assert not watcher.jobs
        drop(watcher.spool, "a", files=3)
        work(worker)
    assert set(released(watcher, "a")) == {"0.dcm", "1.dcm", "plan.txt"}


@pytest.mark.parametrize("originals", [Originals.ARCHIVE, Originals.DELETE])
def test_a_second_patient_under_the_same_folder_and_file_names_is_a_job_of_its_own(
    watcher: RunningWatcher, originals: Originals
) -> None:
    """Also one with fewer files; nothing of the first patient comes with it."""
    watcher.originals = originals
    drop(watcher.spool, "a", files=4)
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        hidden = drop(watcher.spool, ".a")
        hidden.rename(watcher.spool.inbox / "a")
        other = {
            path.name: reversed_bytes(path.read_bytes())
            for path in (watcher.spool.inbox / "a").iterdir()
        }
        work(worker)
    assert released(watcher, "a") == other
    assert last_report(watcher, "a").manifest.files == 2


def test_a_late_slice_of_a_refused_case_is_added_to_its_quarantined_originals(
    watcher: RunningWatcher,
) -> None:
    """The case that was incomplete is whole now."""
    drop(watcher.spool, "a", "refuse")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        assert last_report(watcher, "a").state is State.REFUSED
        drop_late(watcher, "a")
        work(worker)
    report = last_report(watcher, "a")
    assert {file.file for file in report.result.files} == {"0.dcm", "plan.txt", "late.dcm"}


def test_a_resent_part_of_a_case_counts_as_late_and_loses_nothing(watcher: RunningWatcher) -> None:
    """The same bytes under the same name contradict nothing."""
    first = (drop(watcher.spool, "a") / "0.dcm").read_bytes()
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        drop_late(watcher, "a", "0.dcm", first)
        work(worker)
    assert set(released(watcher, "a")) == {"0.dcm", "plan.txt"}


def test_a_case_changed_while_its_job_ran_is_published_again(watcher: RunningWatcher) -> None:
    """A job that failed on a missing file does not make the case known forever."""
    folder = drop(watcher.spool, "a")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    watcher.end()
    away = (folder / "0.dcm").rename(watcher.spool.archive / "0.dcm")
    with worker_of(watcher) as worker:
        work(worker, jobs=2)  # both attempts
        assert last_report(watcher, "a").result.code == "InputChanged"
        away.rename(folder / "0.dcm")
        watcher.start()
        work(worker)
    assert set(released(watcher, "a")) == {"0.dcm", "plan.txt"}
    assert last_report(watcher, "a").generation == 1


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_watcher_killed_while_it_puts_a_case_together_goes_on(
    watcher: RunningWatcher, moved: int
) -> None:
    """After copying, between two late files, or just before the rename."""
    drop(watcher.spool, "a")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        watcher.end()
        drop_late(watcher, "a", "b.dcm")
        folder = drop_late(watcher, "a", "c.dcm").parent
        together = late_files.gathering_folder(folder)
        together.mkdir()
        (originals,) = (watcher.spool.archive / "originals/a").iterdir()
        (together / "plan.txt").write_bytes((originals / "plan.txt").read_bytes())
        for name in ("b.dcm", "c.dcm")[:moved]:
            (folder / name).rename(together / name)
        watcher.start()
        work(worker)
    assert set(released(watcher, "a")) == {"0.dcm", "plan.txt", "b.dcm", "c.dcm"}
    assert not list(watcher.spool.inbox.iterdir())


def test_what_a_dropper_writes_into_a_case_put_together_does_not_reach_the_archive(
    watcher: RunningWatcher,
) -> None:
    """The archived files are copied, not linked."""
    drop(watcher.spool, "a")
    watcher.start()
    with worker_of(watcher) as worker:
        work(worker)
        (archived,) = (watcher.spool.archive / "originals/a").glob("*/0.dcm")
        before = archived.read_bytes()
        drop_late(watcher, "a")
        wait_for(lambda: bool(watcher.jobs))
        (watcher.spool.inbox / "a" / "0.dcm").write_bytes(b"over")
        assert archived.read_bytes() == before
