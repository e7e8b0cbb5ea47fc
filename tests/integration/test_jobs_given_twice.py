"""A job that two workers get at once has one visible effect, and an older job that ends after a newer one changes nothing."""

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

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.settlement import Ack, Retry
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.messages import EventKind
from ctdeface_shared.options import Originals
from ctdeface_shared.ownership import UNFINISHED
from ctdeface_shared.spool import ServiceSpool
from ctdeface_worker.journal import record
from ctdeface_worker.refusal import refuse
from ctdeface_worker.report.model import CaseReport, State, failed
from ctdeface_worker.service import Ending, Station, handle
from ctdeface_worker.tries import JobTaken
from tests.integration.test_brokers import received
from tests.integration.test_worker_service import make_station
from tests.service.fleet import Fleet, found_site
from tests.service.spools import Ends, drop, ends, job_for, reports


@pytest.fixture(params=["sqlite", "rabbitmq"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Workers that are yet to be started and leave dropped files where they are, on a fresh queue of each kind."""
    url = None if request.param == "sqlite" else request.getfixturevalue("clean_rabbitmq").url
    made = Fleet(folder=tmp_path, site=found_site(tmp_path, url, spool={"originals": "keep"}))
    made.site.prepare()
    yield made
    made.stop()


def freeze(worker: "subprocess.Popen[bytes]") -> None:
    """Stop a process where it is, as a host that swaps or a suspended machine does; its child runs on."""
    os.kill(worker.pid, signal.SIGSTOP)


def thaw(worker: "subprocess.Popen[bytes]") -> None:
    """Let it go on."""
    os.kill(worker.pid, signal.SIGCONT)


def test_a_job_whose_worker_froze_is_given_to_another_and_shown_once(fleet: Fleet) -> None:
    """Lease or heartbeats are over and the ack comes too late: the second worker leaves the job to the first as long as that one lives."""
    drop(fleet.spool, "a", "slow")
    job = job_for(fleet.spool, "a")
    listener = open_broker(replace(fleet.site.queue, heartbeat_seconds=60))
    assert listener.listen(0) is None
    first = fleet.start()
    fleet.publish(job)
    fleet.until(lambda: fleet.said("stage_begun", job.job_id) != [])
    freeze(first)
    fleet.start()
    fleet.until(lambda: "Retry" in fleet.said("job_settled", job.job_id))
    thaw(first)
    fleet.until(lambda: "Ack" in fleet.said("job_settled", job.job_id))
    settled = fleet.said("job_settled", job.job_id)
    assert (settled.count("TooLate"), settled[-1], fleet.said("attempt_begun", job.job_id)) == (1, "Ack", [1])
    assert ends(fleet.spool) == Ends(inbox=["a"], outbox=["a"], quarantine=[])
    assert [report.state for report in reports(fleet.spool, "a")] == [State.DONE]
    assert not (fleet.spool.archive / "outputs").exists()
    event = listener.listen(10)
    assert event is not None
    assert (event.kind, event.job_id) == (EventKind.RELEASED, job.job_id)
    listener.close()


def test_an_older_job_that_ends_after_a_newer_one_of_another_worker_changes_nothing(fleet: Fleet) -> None:
    """The worker of the older job is frozen until the newer one is published."""
    drop(fleet.spool, "a", "slow")
    now = datetime.now(UTC)
    older, newer = job_for(fleet.spool, "a", 0, now - timedelta(hours=1)), job_for(fleet.spool, "a", 1, now)
    first = fleet.start()
    fleet.publish(older)
    fleet.until(lambda: fleet.said("stage_begun", older.job_id) != [])
    freeze(first)
    fleet.publish(newer)
    fleet.start()
    fleet.until(lambda: "Ack" in fleet.said("job_settled", newer.job_id))
    shown = (fleet.spool.outbox / "a").stat().st_ino
    thaw(first)
    fleet.until(lambda: "Ack" in fleet.said("job_settled", older.job_id))
    states = {report.job_id: report.state for report in reports(fleet.spool, "a")}
    assert states == {older.job_id: State.SUPERSEDED, newer.job_id: State.DONE}
    assert (fleet.spool.outbox / "a").stat().st_ino == shown
    assert ends(fleet.spool) == Ends(inbox=["a"], outbox=["a"], quarantine=[])


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path)
    made.prepare(outbox_mode=0o750)
    made.prepare_inbox(Originals.ARCHIVE)
    return made


@pytest.fixture
def station(spool: ServiceSpool) -> Iterator[Station]:
    """A slot with a queue in memory."""
    made = make_station(spool, MemoryBroker())
    yield made
    made.bench.child.close()


def test_a_second_delivery_waits_for_the_first_and_costs_no_attempt(station: Station) -> None:
    """However often a broker gives a long job out again, the bound of attempts is not reached by that."""
    drop(station.spool, "a", "slow")
    station.broker.publish(job_for(station.spool, "a"))
    delivery = received(station.broker)
    endings: list[Ending] = []
    first = threading.Thread(target=lambda: endings.append(handle(station, delivery)))
    first.start()
    while not list(station.spool.reports.glob("*/*/attempts.log")):
        threading.Event().wait(0.01)
    again = handle(make_station(station.spool, MemoryBroker()), replace(delivery, attempt=99))
    assert again.settlement == Retry(station.rule.delays_seconds[0], 98)
    first.join()
    assert [ending.settlement for ending in endings] == [Ack()]
    assert handle(station, replace(delivery, attempt=99)).settlement == Ack()
    assert ends(station.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_a_job_that_was_done_stays_done_when_its_output_was_taken_away(station: Station) -> None:
    """Downstream moved the case on before a late redelivery came: nothing is refused, and nothing lies in quarantine."""
    drop(station.spool, "a")
    station.broker.publish(job_for(station.spool, "a"))
    delivery = received(station.broker)
    handle(station, delivery)
    shutil.rmtree(station.spool.outbox / "a")
    ending = handle(station, replace(delivery, attempt=99))
    assert (ending.settlement, ending.report and ending.report.state) == (Ack(), State.DONE)
    assert ends(station.spool) == Ends(inbox=[], outbox=[], quarantine=[])


@pytest.fixture
def reported(station: Station) -> tuple[CaseReport, CaseReport]:
    """The report of a published job, and of the same job as another worker wants to refuse it."""
    drop(station.spool, "a")
    station.broker.publish(job_for(station.spool, "a"))
    released = handle(station, received(station.broker)).report
    assert released is not None
    return released, replace(released, state=State.REFUSED, result=failed(JobTaken("")))


def test_a_refusal_that_comes_after_the_publication_gives_way(spool: ServiceSpool, reported: tuple[CaseReport, CaseReport]) -> None:
    """The case is never in outbox and quarantine, and the report of the publication stays."""
    released, refused = reported
    assert refuse(spool, refused, Originals.ARCHIVE, stale_seconds=60) == released
    assert ends(spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
    assert reports(spool, "a") == [released]


def test_a_refusal_waits_while_an_output_is_about_to_be_published(spool: ServiceSpool, reported: tuple[CaseReport, CaseReport]) -> None:
    """What another attempt has proven and marked will appear in the outbox; once the mark is gone it will not, and the case is refused."""
    released, refused = reported
    staged = spool.staging / "0123456789abcdef"
    staged.mkdir()
    (spool.outbox / "a").rename(staged / "dicom")
    folder = spool.reports / "a" / released.job_id
    (folder / "report.json").write_bytes(replace(released, state=State.PREPARED, staged=staged.name).to_json())
    (staged / UNFINISHED).touch()
    attempt = partial(refuse, spool, refused, Originals.ARCHIVE, stale_seconds=60)
    with pytest.raises(StorageUnavailable, match="published and not refused"):
        attempt()
    assert ends(spool).quarantine == []
    (staged / UNFINISHED).unlink()
    assert attempt() == refused
    assert CaseReport.from_json((spool.quarantine / "a" / refused.job_id / "report.json").read_bytes()) == refused


def test_a_refused_repetition_is_shown_with_its_own_report(spool: ServiceSpool, reported: tuple[CaseReport, CaseReport]) -> None:
    """The same drop came again and failed: quarantine tells why, and the report of what is published stays."""
    released, refused = reported
    later = replace(refused, created_at=datetime.now(UTC).isoformat(timespec="milliseconds"))
    assert refuse(spool, later, Originals.ARCHIVE, stale_seconds=60) == later
    assert CaseReport.from_json((spool.quarantine / "a" / later.job_id / "report.json").read_bytes()) == later
    assert reports(spool, "a") == [released]
    record(spool, later)
    assert reports(spool, "a") == [released]
