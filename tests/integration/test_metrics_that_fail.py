"""A metric that fails costs no job."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.settings.service import find_service
from ctdeface_worker.service.consumer import serve
from ctdeface_worker.service.events import JobEvent, Progress
from ctdeface_worker.service.process import worker_slot
from tests.support.service.spools import Ends, drop, ends, job_for
from tests.support.service.stand_in_worker import pipeline


def test_jobs_end_as_they_do_when_every_count_of_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One case is released and one refused, though the hook raises on every event."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "0")
    service, stop, events = (
        find_service(None, tmp_path / "spool"),
        threading.Event(),
        list[JobEvent](),
    )
    service.prepare()
    for name, plan in {"a": "release", "b": "refuse"}.items():
        drop(service.spool, name, plan)
        broker = open_broker(service.queue)
        broker.publish(job_for(service.spool, name))
        broker.close()

    def fail(event: JobEvent) -> None:
        events.append(event)
        if event.kind is Progress.SETTLED and not ends(service.spool).not_ended:
            stop.set()
        raise KeyError

    def run_slot() -> None:
        serve(replace(worker_slot(service, "slot-0", stop, pipeline), hooks=(fail,)))

    slot = threading.Thread(target=run_slot)
    slot.start()
    slot.join(40)
    stop.set()
    slot.join()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["b"])
    counted = [event for event in events if event.stage != "settle"]
    assert len(counted) == 10  # received, attempt, two stages and settled, of each case
