"""The same drop again: its job ends, and its files are archived beside the earlier ones."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.settlement import Ack
from ctdeface_shared.jobs.history import JobRecord
from ctdeface_shared.jobs.messages import DefaceJob, encode_job
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.put_away import put_away_repeated
from ctdeface_worker.report.model import State
from ctdeface_worker.service.consumer import WorkerSlot, handle
from tests.integration.test_brokers import received
from tests.support.service.slots import SlotOptions, make_slot
from tests.support.service.spools import Ends, drop, ends, job_for


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[WorkerSlot]:
    """A slot with a queue in memory."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    made = make_slot(spool, MemoryBroker(), SlotOptions(timeout=60))
    yield made
    made.resources.child.close()


def dropped_again(slot: WorkerSlot, name: str, plan: str, job: DefaceJob, times: int) -> DefaceJob:
    """Drop the same files again; return the same job, submitted later."""
    for path in (folder := drop(slot.spool, name, plan), *folder.iterdir()):
        os.utime(path, ns=(times, times))
    again = job_for(slot.spool, name, 0, job.submitted_at + timedelta(seconds=1))
    assert again.job_id == job.job_id
    return again


@pytest.mark.parametrize(
    ("plan", "collected"), [("refuse", False), ("release", False), ("release", True)]
)
def test_the_same_drop_that_comes_again_is_answered_and_put_away_again(
    slot: WorkerSlot, plan: str, *, collected: bool
) -> None:
    """Beside the earlier one, with a number; a collected output is published again."""
    for path in (folder := drop(slot.spool, "a", plan), *folder.iterdir()):
        os.utime(path, ns=(10**18, 10**18))
    job = job_for(slot.spool, "a", 0, datetime.now(UTC) - timedelta(hours=1))
    slot.broker.publish(job)
    delivery = received(slot.broker)
    assert handle(slot, delivery).settlement == Ack()
    if collected:
        (slot.spool.outbox / "a").rename(slot.spool.work / "collected")
    again = dropped_again(slot, "a", plan, job, 10**18)
    assert handle(slot, replace(delivery, body=encode_job(again))).settlement == Ack()
    refused = plan == "refuse"
    assert ends(slot.spool) == Ends(
        inbox=[], outbox=[] if refused else ["a"], quarantine=["a"] if refused else []
    )
    put_away = (
        slot.spool.quarantine / "a" / job.job_id
        if refused
        else slot.spool.archive / "originals" / "a"
    )
    name = "originals" if refused else job.job_id
    assert {path.name for path in put_away.iterdir() if path.is_dir()} == {name, f"{name}-2"}


def test_originals_of_a_job_that_a_newer_one_replaced_are_never_deleted(
    slot: WorkerSlot,
) -> None:
    """Nothing was released of them, so they are archived instead."""
    drop(slot.spool, "a")
    now = datetime.now(UTC)
    older = job_for(slot.spool, "a", 0, now - timedelta(hours=1), copied=True)
    newer = job_for(slot.spool, "a", 1, now)
    deleting = make_slot(slot.spool, MemoryBroker(), SlotOptions(originals=Originals.DELETE))
    slot.broker.publish(newer)
    delivery = received(slot.broker)
    handle(slot, delivery)
    ending = handle(deleting, replace(delivery, body=encode_job(older)))
    assert ending.report is not None
    assert ending.report.state is State.SUPERSEDED
    assert (slot.spool.archive / "originals" / "a" / older.job_id / "plan.txt").exists()


@pytest.mark.parametrize(("copied", "archived"), [(True, 0), (False, 1)])
def test_a_known_drop_that_is_not_in_the_inbox_any_more_is_never_removed(
    slot: WorkerSlot, *, copied: bool, archived: int
) -> None:
    """It was moved before the rule `keep` was set, and the earlier originals are gone."""
    drop(slot.spool, "a")
    taken = taken_case(slot.spool, job_for(slot.spool, "a", copied=copied).taken)
    record = taken.record()
    assert record is not None
    assert record.manifest is not None
    latest = JobRecord(
        case="a",
        job_id="00000000-0000-0000-0000-000000000000",
        state=JobState.DONE,
        digest=record.manifest.digest,
        created_at="2026-01-01T00:00:00.000+00:00",
    )
    put_away_repeated(slot.spool, taken, latest, Originals.KEEP)
    assert not taken.folder.exists()
    assert len(list((slot.spool.archive / "originals").glob("a/*/plan.txt"))) == archived
