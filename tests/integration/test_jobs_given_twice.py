"""A job delivered to two workers has one effect; an older job never replaces a newer one."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.settlement import Ack, Retry
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.storage.locks import UNFINISHED
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.publishing.journal import record_refusal
from ctdeface_worker.publishing.quarantine import refuse
from ctdeface_worker.report.model import CaseReport, State, failed
from ctdeface_worker.service.attempts import JobInProgress
from ctdeface_worker.service.consumer import Conclusion, WorkerSlot, handle
from tests.integration.test_brokers import received
from tests.support.service.local_service import LocalService, configured_service
from tests.support.service.slots import SlotOptions, make_slot
from tests.support.service.spools import Ends, drop, ends, job_for, reports


@pytest.fixture(params=["sqlite", "rabbitmq"])
def local_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalService]:
    """Workers not yet started that keep originals, on a fresh queue of each kind."""
    url = None if request.param == "sqlite" else request.getfixturevalue("clean_rabbitmq").url
    made = LocalService(
        folder=tmp_path, service=configured_service(tmp_path, url, spool={"originals": "keep"})
    )
    made.service.prepare()
    yield made
    made.stop()


def freeze(worker: "subprocess.Popen[bytes]") -> None:
    """Stop a process, as a suspended machine does; its child runs on."""
    os.kill(worker.pid, signal.SIGSTOP)


def thaw(worker: "subprocess.Popen[bytes]") -> None:
    """Let it go on."""
    os.kill(worker.pid, signal.SIGCONT)


def test_a_job_whose_worker_froze_is_given_to_another_and_shown_once(
    local_service: LocalService,
) -> None:
    """The ack comes too late; the second worker waits as long as the first one lives."""
    drop(local_service.spool, "a", "slow")
    job = job_for(local_service.spool, "a", copied=True)
    first = local_service.start()
    local_service.publish(job)
    local_service.until(lambda: local_service.logged("stage_begun", job.job_id) != [])
    freeze(first)
    local_service.start()
    local_service.until(lambda: "Retry" in local_service.logged("job_settled", job.job_id))
    thaw(first)
    local_service.until(lambda: "Ack" in local_service.logged("job_settled", job.job_id))
    settled = local_service.logged("job_settled", job.job_id)
    assert (
        settled.count("TooLate"),
        settled[-1],
        local_service.logged("attempt_begun", job.job_id),
    ) == (
        1,
        "Ack",
        [1],
    )
    assert ends(local_service.spool) == Ends(inbox=["a"], outbox=["a"], quarantine=[])
    assert [report.state for report in reports(local_service.spool, "a")] == [State.DONE]
    assert not (local_service.spool.archive / "outputs").exists()


def test_an_older_job_that_ends_after_a_newer_one_of_another_worker_changes_nothing(
    local_service: LocalService,
) -> None:
    """The worker of the older job is frozen until the newer one is published."""
    drop(local_service.spool, "a", "slow")
    now = datetime.now(UTC)
    older = job_for(local_service.spool, "a", 0, now - timedelta(hours=1), copied=True)
    newer = job_for(local_service.spool, "a", 1, now, copied=True)
    first = local_service.start()
    local_service.publish(older)
    local_service.until(lambda: local_service.logged("stage_begun", older.job_id) != [])
    freeze(first)
    local_service.publish(newer)
    local_service.start()
    local_service.until(lambda: "Ack" in local_service.logged("job_settled", newer.job_id))
    shown = (local_service.spool.outbox / "a").stat().st_ino
    thaw(first)
    local_service.until(lambda: "Ack" in local_service.logged("job_settled", older.job_id))
    states = {report.job_id: report.state for report in reports(local_service.spool, "a")}
    assert states == {older.job_id: State.SUPERSEDED, newer.job_id: State.DONE}
    assert (local_service.spool.outbox / "a").stat().st_ino == shown
    assert ends(local_service.spool) == Ends(inbox=["a"], outbox=["a"], quarantine=[])


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path)
    made.prepare(outbox_mode=0o750)
    made.prepare_inbox(moves_originals=True)
    return made


@pytest.fixture
def slot(spool: ServiceSpool) -> Iterator[WorkerSlot]:
    """A slot with a queue in memory."""
    made = make_slot(spool, MemoryBroker(), SlotOptions(timeout=60))
    yield made
    made.resources.child.close()


def test_a_second_delivery_waits_for_the_first_and_costs_no_attempt(slot: WorkerSlot) -> None:
    """Redeliveries of a long job never use up its attempts."""
    drop(slot.spool, "a", "slow")
    slot.broker.publish(job_for(slot.spool, "a"))
    delivery = received(slot.broker)
    endings: list[Conclusion] = []
    first = threading.Thread(target=lambda: endings.append(handle(slot, delivery)))
    first.start()
    while not list(slot.spool.reports.glob("*/*/attempts.log")):
        threading.Event().wait(0.01)
    again = handle(make_slot(slot.spool, MemoryBroker()), replace(delivery, attempt=99))
    assert again.settlement == Retry(slot.rule.delays_seconds[0])
    first.join()
    assert [ending.settlement for ending in endings] == [Ack()]
    assert handle(slot, replace(delivery, attempt=99)).settlement == Ack()
    assert ends(slot.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_a_job_that_was_done_stays_done_when_its_output_was_taken_away(slot: WorkerSlot) -> None:
    """After the output was collected, a late redelivery refuses and quarantines nothing."""
    drop(slot.spool, "a")
    slot.broker.publish(job_for(slot.spool, "a"))
    delivery = received(slot.broker)
    handle(slot, delivery)
    shutil.rmtree(slot.spool.outbox / "a")
    ending = handle(slot, replace(delivery, attempt=99))
    assert (ending.settlement, ending.report and ending.report.state) == (Ack(), State.DONE)
    assert ends(slot.spool) == Ends(inbox=[], outbox=[], quarantine=[])


@pytest.fixture
def reported(slot: WorkerSlot) -> tuple[CaseReport, CaseReport]:
    """The report of a published job, and of the same job as another worker wants to refuse it."""
    drop(slot.spool, "a")
    slot.broker.publish(job_for(slot.spool, "a"))
    released = handle(slot, received(slot.broker)).report
    assert released is not None
    return released, replace(released, state=State.REFUSED, result=failed(JobInProgress("")))


def test_a_refusal_that_comes_after_the_publication_gives_way(
    spool: ServiceSpool, reported: tuple[CaseReport, CaseReport]
) -> None:
    """The case is never in outbox and quarantine, and the report of the publication stays."""
    released, refused = reported
    assert refuse(spool, refused, Originals.ARCHIVE, stale_seconds=60) == released
    assert ends(spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
    assert reports(spool, "a") == [released]


def test_a_refusal_waits_while_an_output_is_about_to_be_published(
    spool: ServiceSpool, reported: tuple[CaseReport, CaseReport]
) -> None:
    """A marked output will be published; without its mark the case is refused."""
    released, refused = reported
    staged = spool.staging / "0123456789abcdef"
    staged.mkdir()
    (spool.outbox / "a").rename(staged / "dicom")
    folder = spool.reports / "a" / released.job_id
    (folder / "report.json").write_bytes(
        replace(released, state=State.PREPARED, staged=staged.name).to_json()
    )
    (staged / UNFINISHED).touch()
    attempt = partial(refuse, spool, refused, Originals.ARCHIVE, stale_seconds=60)
    with pytest.raises(StorageUnavailable, match="published and not refused"):
        attempt()
    assert ends(spool).quarantine == []
    (staged / UNFINISHED).unlink()
    assert attempt() == refused
    assert (
        CaseReport.from_json((spool.quarantine / "a" / refused.job_id / "report.json").read_bytes())
        == refused
    )


def test_a_refused_repetition_is_shown_with_its_own_report(
    spool: ServiceSpool, reported: tuple[CaseReport, CaseReport]
) -> None:
    """Quarantine shows the new reason, and the report of the publication stays."""
    released, refused = reported
    later = replace(refused, created_at=datetime.now(UTC).isoformat(timespec="milliseconds"))
    assert refuse(spool, later, Originals.ARCHIVE, stale_seconds=60) == later
    assert (
        CaseReport.from_json((spool.quarantine / "a" / later.job_id / "report.json").read_bytes())
        == later
    )
    assert reports(spool, "a") == [released]
    record_refusal(spool, later, stale_seconds=60)
    assert reports(spool, "a") == [released]
