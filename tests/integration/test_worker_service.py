"""One worker slot over a real spool brings every job to its end."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.protocols import Delivery
from ctdeface_shared.broker.settlement import Ack, Retry
from ctdeface_shared.errors import ConfigurationError, FaceNotFound
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.manifest import Covers, Manifest, digest_of_times
from ctdeface_shared.jobs.messages import DefaceJob, EventKind
from ctdeface_shared.jobs.options import HeaderPolicy, Originals
from ctdeface_shared.jobs.taken import JOB, taken_case
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.case.run import CaseInput, case_input, refuse_case, run_case
from ctdeface_worker.publishing.journal import record
from ctdeface_worker.report.model import CaseReport, State, failed
from ctdeface_worker.service.consumer import WorkerSlot, handle, serve
from tests.support.service.slots import RULE, SlotOptions, make_slot, with_before_done
from tests.support.service.spools import OPTIONS, Ends, drop, ends, job_for, reports
from tests.support.service.stand_in_pipeline import reversed_bytes


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[WorkerSlot]:
    """A slot with everything real but the pipeline."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    made = make_slot(spool, MemoryBroker(), SlotOptions(grace=0.2))
    yield made
    made.resources.child.close()


def work_until(slot: WorkerSlot, done: Callable[[], bool]) -> None:
    """Let the slot serve until a condition holds, at most 20 seconds."""
    thread = threading.Thread(target=partial(serve, slot))
    thread.start()
    for _ in range(400):
        if done() or not thread.is_alive():
            break
        threading.Event().wait(0.05)
    slot.stop.set()
    thread.join()
    assert done()


def is_empty(broker: MemoryBroker) -> bool:
    """Whether nothing is waiting or held."""
    depth = broker.depth()
    return not (depth.ready or depth.held or depth.delayed)


def publish(slot: WorkerSlot, *jobs: DefaceJob) -> None:
    """Put jobs into the queue."""
    for job in jobs:
        slot.broker.publish(job)


def queue_of(slot: WorkerSlot) -> MemoryBroker:
    """The slot's queue, for looking into."""
    assert isinstance(slot.broker, MemoryBroker)
    return slot.broker


def test_a_released_case_lies_in_the_outbox_its_originals_in_the_archive_and_an_event_tells(
    slot: WorkerSlot,
) -> None:
    """The whole way of a job that goes well."""
    content = (drop(slot.spool, "a") / "0.dcm").read_bytes()
    job = job_for(slot.spool, "a")
    publish(slot, job)
    work_until(slot, lambda: bool(queue_of(slot).queue.announced))
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
    assert (slot.spool.outbox / "a" / "0.dcm").read_bytes() == reversed_bytes(content)
    assert (slot.spool.archive / "originals" / "a" / job.job_id / "0.dcm").read_bytes() == content
    (event,) = queue_of(slot).queue.announced
    assert (event.kind, event.job_id) == (EventKind.RELEASED, job.job_id)
    assert [report.state for report in reports(slot.spool, "a")] == [State.DONE]


def test_a_job_that_wants_new_uids_is_not_done_by_a_worker_without_the_secret(
    slot: WorkerSlot,
) -> None:
    """Without it anybody could compute the new UIDs of known ones."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    job = replace(job, options=replace(job.options, headers=HeaderPolicy.ANNOTATE))
    taken_case(slot.spool, job.taken).write_job(job)
    publish(slot, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=["a"])
    (report,) = reports(slot.spool, "a")
    assert report.result.code == "SecretMissing"
    assert "CTDEFACE_UID_KEY" in report.result.reason


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ("refuse", "FaceNotFound"),
        ("bug", "UnexpectedError"),
        ("crash", "WorkerCrashed"),
        ("memory", "OutOfMemory"),
        ("hang", "WorkerTimedOut"),
    ],
)
def test_a_case_that_cannot_be_released_ends_in_quarantine_while_others_go_on(
    slot: WorkerSlot, plan: str, code: str
) -> None:
    """After its attempts the case is quarantined with its originals; the next is released."""
    drop(slot.spool, "bad", plan)
    drop(slot.spool, "good")
    publish(slot, job_for(slot.spool, "bad"), job_for(slot.spool, "good"))
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=["good"], quarantine=["bad"])
    (report,) = reports(slot.spool, "bad")
    assert (report.state, report.result.code) == (State.REFUSED, code)
    assert list((slot.spool.quarantine / "bad").glob("*/originals/plan.txt"))
    assert attempt_log.read(slot.spool.reports / "bad" / report.job_id).count == (
        1 if plan == "refuse" else RULE.max_attempts
    )


def test_a_crash_that_does_not_come_again_costs_one_attempt(slot: WorkerSlot) -> None:
    """The second attempt releases the case."""
    drop(slot.spool, "a", "once crash")
    publish(slot, job_for(slot.spool, "a"))
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_attempts_that_nobody_settled_are_counted_from_the_disk(slot: WorkerSlot) -> None:
    """A job whose workers died with it is quarantined without a further attempt."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    for _ in range(RULE.max_attempts):
        attempt_log.begin(slot.spool.reports / "a" / job.job_id)
    publish(slot, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=["a"])
    assert reports(slot.spool, "a")[0].result.code == "WorkerCrashed"


def test_every_end_of_a_case_is_on_the_page_of_all_cases(slot: WorkerSlot) -> None:
    """Released, refused for its content and refused after its attempts: one row each."""
    for name, plan in {"a": "release", "b": "refuse", "c": "crash"}.items():
        drop(slot.spool, name, plan)
        publish(slot, job_for(slot.spool, name))
    work_until(slot, lambda: is_empty(queue_of(slot)))
    page = (slot.spool.reports / "index.html").read_text(encoding="utf-8")
    assert page.count("<tr data-job=") == 3
    for text in ("released", "FaceNotFound", "WorkerCrashed"):
        assert text in page


def test_a_page_of_all_cases_that_cannot_be_written_changes_no_outcome(slot: WorkerSlot) -> None:
    """The case is released although a folder is in the place of the page."""
    (slot.spool.reports / "index.html").mkdir()
    drop(slot.spool, "a")
    publish(slot, job_for(slot.spool, "a"))
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_the_same_job_twice_is_published_once(slot: WorkerSlot) -> None:
    """A redelivery after the end changes nothing."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    publish(slot, job, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
    assert not list((slot.spool.archive / "outputs").glob("*"))


@pytest.mark.parametrize("name", ["0.dcm", "late.dcm"])
def test_files_that_differ_from_their_job_are_not_released(slot: WorkerSlot, name: str) -> None:
    """A changed byte or a further file, with the times kept: refused, with all files."""
    status = (drop(slot.spool, "a") / "0.dcm").stat()
    job = job_for(slot.spool, "a")
    files = taken_case(slot.spool, job.taken).files
    (files / name).write_bytes(b"b" + (files / "0.dcm").read_bytes()[1:])
    os.utime(files / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    publish(slot, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=["a"])
    (report,) = reports(slot.spool, "a")
    assert report.result.code == "InputChanged"
    originals = slot.spool.quarantine / "a" / job.job_id / "originals"
    assert {path.name for path in originals.iterdir()} == {"plan.txt", "0.dcm", name}


def test_a_job_whose_files_are_gone_is_refused(slot: WorkerSlot) -> None:
    """A person who removed them finds a report; the worker goes on."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    shutil.rmtree(slot.spool.taken / job.taken)
    publish(slot, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=["a"])
    (report,) = reports(slot.spool, "a")
    assert (report.result.code, report.result.reason) == (
        "InputChanged",
        "the files of the case are gone: drop the case again",
    )
    assert not (slot.spool.quarantine / "a" / job.job_id / "originals").exists()


def test_a_job_of_the_release_before_is_left_to_the_watcher(slot: WorkerSlot) -> None:
    """Its case is in the inbox; the worker acknowledges the message and touches nothing."""
    folder = drop(slot.spool, "a")
    job = DefaceJob(
        job_id="00000000-0000-0000-0000-000000000000",
        case="a",
        manifest=Manifest(files=2, bytes=1, digest=digest_of_times(folder), covers=Covers.TIMES),
        submitted_at=datetime.now(UTC),
        options=OPTIONS,
    )
    publish(slot, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=["a"], outbox=[], quarantine=[])
    assert (queue_of(slot).depth().dead, reports(slot.spool, "a")) == (0, [])


def _recorded(slot: WorkerSlot, case: CaseInput) -> None:
    record(slot.spool, case.report(failed(FaceNotFound("no face"))))


def _moved(slot: WorkerSlot, case: CaseInput) -> None:
    refuse_case(case, FaceNotFound("no face"), slot.resources)


def _emptied(slot: WorkerSlot, case: CaseInput) -> None:
    _moved(slot, case)
    (slot.spool.taken / case.taken / "job.json").unlink()


@pytest.mark.parametrize("last_step", [_recorded, _moved, _emptied])
def test_a_refusal_that_was_interrupted_is_finished_by_the_next_delivery(
    slot: WorkerSlot, last_step: Callable[[WorkerSlot, CaseInput], None]
) -> None:
    """The originals are in quarantine once, whatever the last step was; no attempt is made."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    last_step(slot, case_input(slot.spool, job, Originals.ARCHIVE))
    publish(slot, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=["a"])
    (report,) = reports(slot.spool, "a")
    assert (report.state, report.result.code) == (State.REFUSED, "FaceNotFound")
    folder = slot.spool.quarantine / "a" / job.job_id
    assert sorted(path.name for path in folder.iterdir()) == [
        "originals",
        "report.html",
        "report.json",
    ]
    assert not (slot.spool.reports / "a" / job.job_id / "attempts.log").exists()


@pytest.mark.parametrize("rule", Originals)
def test_a_done_job_whose_taken_folder_is_left_is_cleared_by_the_next_delivery(
    tmp_path: Path, rule: Originals
) -> None:
    """A worker was killed after the report said done; only `archive` keeps the files."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    slot = make_slot(spool, MemoryBroker(), SlotOptions(originals=rule))
    drop(spool, "a")
    job = job_for(spool, "a", copied=rule is Originals.KEEP)
    case = case_input(spool, job, rule)
    assert run_case(case, slot.resources, lambda _: None).report.state is State.DONE
    assert ends(spool).taken == ["a"]
    publish(slot, job)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    inbox = ["a"] if rule is Originals.KEEP else []
    assert ends(spool) == Ends(inbox=inbox, outbox=["a"], quarantine=[])
    archived = sorted(path.name for path in (spool.archive / "originals").glob("a/*"))
    assert archived == ([job.job_id] if rule is Originals.ARCHIVE else [])


def test_a_message_cannot_release_the_files_of_another_case(slot: WorkerSlot) -> None:
    """The record beside the files names their case; the message is a dead letter."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    publish(slot, replace(job, case="b"))
    work_until(slot, lambda: queue_of(slot).depth().dead == 1)
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=[], taken=["a"])


def test_a_message_cannot_release_files_that_have_no_job_yet(slot: WorkerSlot) -> None:
    """Its sender may know the folder of a drop of his own, and choose name and options."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    taken = taken_case(slot.spool, job.taken)
    (taken.folder / JOB).unlink()
    publish(slot, replace(job, case="b"))
    work_until(slot, lambda: queue_of(slot).depth().dead == 1)
    taken.files.rename(taken.drop)  # as before its examination
    publish(slot, job)
    slot.stop.clear()
    work_until(slot, lambda: queue_of(slot).depth().dead == 2)
    assert taken.drop.is_dir()
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=[], taken=["a"])


def test_a_message_cannot_refuse_the_job_of_other_files(slot: WorkerSlot) -> None:
    """The id of a waiting job with an invented folder."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    publish(slot, replace(job, taken="0" * 32))
    work_until(slot, lambda: queue_of(slot).depth().dead == 1)
    assert reports(slot.spool, "a") == []
    publish(slot, job)
    slot.stop.clear()
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_a_message_that_another_job_has_replaced_does_nothing(slot: WorkerSlot) -> None:
    """Its files belong to the newer job, whose message is acknowledged in its turn."""
    drop(slot.spool, "a")
    job = job_for(slot.spool, "a")
    newer = replace(job, job_id="00000000-0000-0000-0000-000000000000", generation=1)
    taken_case(slot.spool, job.taken).write_job(newer)
    publish(slot, job, newer)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
    assert [report.job_id for report in reports(slot.spool, "a")] == [newer.job_id]


def test_an_older_job_that_ends_after_a_newer_one_does_not_replace_its_output(
    slot: WorkerSlot,
) -> None:
    """The newest wins, whatever the order of arrival."""
    drop(slot.spool, "a")
    now = datetime.now(UTC)
    older = job_for(slot.spool, "a", 0, now - timedelta(hours=1), copied=True)
    newer = job_for(slot.spool, "a", 1, now)
    publish(slot, newer)
    work_until(slot, lambda: is_empty(queue_of(slot)))
    before = (slot.spool.outbox / "a").stat().st_ino
    again = make_slot(slot.spool, MemoryBroker())
    publish(again, older)
    work_until(again, lambda: is_empty(queue_of(again)))
    assert (slot.spool.outbox / "a").stat().st_ino == before
    assert {report.job_id: report.state for report in reports(slot.spool, "a")}[
        newer.job_id
    ] is State.DONE


def test_a_worker_that_is_stopped_hands_its_case_back_and_the_attempt_does_not_count(
    slot: WorkerSlot,
) -> None:
    """After the grace period the job is in the queue again, as the attempt that it was."""
    drop(slot.spool, "a", "hang")
    job = job_for(slot.spool, "a")
    publish(slot, job)
    folder = slot.spool.reports / "a" / job.job_id
    threading.Timer(1.0, slot.stop.set).start()
    serve(slot)
    depth = queue_of(slot).depth()
    assert (depth.ready, depth.dead) == (1, 0)
    assert queue_of(slot).queue.ready[0].attempt == 1
    assert attempt_log.read(folder).count == 0
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=[], taken=["a"])


@pytest.mark.parametrize("body", [b"\xff", b"{}", b'{"schema_version": 99}', b"x" * 70_000])
def test_a_message_that_is_no_job_is_buried(slot: WorkerSlot, body: bytes) -> None:
    """It goes to the dead letters and nothing is touched."""
    queue_of(slot).queue.put(body)
    work_until(slot, lambda: queue_of(slot).depth().dead == 1)
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=[])


def test_a_refusal_that_cannot_be_recorded_is_tried_again(slot: WorkerSlot) -> None:
    """With the reports gone read-only nothing is lost: the delivery asks for another attempt."""
    drop(slot.spool, "a", "refuse")
    broker = queue_of(slot)
    publish(slot, job_for(slot.spool, "a"))
    delivery = broker.receive(1.0)
    assert delivery is not None
    slot.spool.reports.rmdir()
    slot.spool.reports.write_text("a file where the folder was", encoding="utf-8")
    broker.settle(delivery, handle(slot, delivery).settlement)
    assert broker.depth().delayed == 1
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=[], taken=["a"])


def test_a_published_case_that_cannot_be_finished_is_never_settled_as_refused(
    slot: WorkerSlot,
) -> None:
    """It is delivered again until it can be finished."""

    def fail(_: CaseReport) -> None:
        raise NotADirectoryError

    drop(slot.spool, "a")
    publish(slot, job_for(slot.spool, "a"))
    delivery = queue_of(slot).receive(1.0)
    assert delivery is not None
    failing = with_before_done(slot, fail)
    for attempt in (1, 2, 3, 4):
        assert isinstance(handle(failing, replace(delivery, attempt=attempt)).settlement, Retry)
    assert [report.state for report in reports(slot.spool, "a")] == [State.PUBLISHED]
    assert handle(slot, replace(delivery, attempt=4)).settlement == Ack()
    assert [report.state for report in reports(slot.spool, "a")] == [State.DONE]
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_a_job_whose_storage_fails_waits_without_losing_an_attempt(slot: WorkerSlot) -> None:
    """A full disk costs no attempt; the case is released when there is space."""
    drop(slot.spool, "a", "while disk")
    job = job_for(slot.spool, "a")
    publish(slot, job)
    delivery = queue_of(slot).receive(1.0)
    assert delivery is not None
    shortage = slot.spool.work / ".full"
    shortage.touch()
    for _ in range(RULE.max_attempts + 2):
        assert handle(slot, delivery).settlement == Retry(RULE.delay_after(1))
    assert attempt_log.read(slot.spool.reports / "a" / job.job_id).count == 0
    shortage.unlink()
    assert handle(slot, delivery).settlement == Ack()
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


class _Closed(MemoryBroker):
    """A queue that lets nobody in."""

    def receive(self, wait_seconds: float) -> Delivery | None:
        """Refuse, as a server does that is given a wrong password."""
        del wait_seconds
        raise ConfigurationError("the queue refuses this user")


def test_a_queue_that_never_lets_the_worker_in_ends_it_with_the_sentence(
    slot: WorkerSlot,
) -> None:
    """Waiting would not help: an operator must change a setting and sees the reason."""
    with pytest.raises(ConfigurationError, match="refuses this user"):
        serve(replace(slot, broker=_Closed()))


def test_an_audit_log_that_cannot_be_written_costs_no_attempt_and_no_reason(
    tmp_path: Path,
) -> None:
    """A refused case waits for the audit log, and keeps the reason that it was refused for."""
    errors = [PermissionError(errno.EACCES, "Permission denied") for _ in range(5)]

    def attest(_: CaseReport) -> None:
        if errors:
            raise errors.pop()

    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    slot = make_slot(spool, MemoryBroker(), SlotOptions(attest=attest))
    drop(spool, "a", "refuse")
    publish(slot, job_for(spool, "a"))
    work_until(slot, lambda: is_empty(queue_of(slot)))
    assert errors == []
    (report,) = reports(spool, "a")
    assert report.result.code == "FaceNotFound"
    assert ends(spool) == Ends(inbox=[], outbox=[], quarantine=["a"])
