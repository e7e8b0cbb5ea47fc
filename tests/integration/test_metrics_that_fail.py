"""Whatever fails in counting costs no job."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.lifecycle import never_raises
from ctdeface_shared.settings.service import find_service
from ctdeface_worker.service.consumer import serve
from ctdeface_worker.service.observer import Observer
from ctdeface_worker.service.process import worker_slot
from tests.support.service.crew import pipeline
from tests.support.service.spools import Ends, drop, ends, job_for


def test_jobs_end_as_they_do_when_every_count_of_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is released and one refused, though each callback raises."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "0")
    service, stop, told = find_service(None, tmp_path / "spool"), threading.Event(), list[object]()
    service.prepare()
    for name, plan in {"a": "release", "b": "refuse"}.items():
        drop(service.spool, name, plan)
        broker = open_broker(service.queue)
        broker.publish(job_for(service.spool, name))
        broker.close()

    @never_raises
    def fail(*what: object) -> None:
        told.append(what)
        if len(what) == 3 and ends(service.spool).inbox == []:
            stop.set()
        raise KeyError

    observer = Observer(taken=fail, attempted=fail, staged=fail, failed=fail, ended=fail, late=fail)

    def be_a_slot() -> None:
        serve(replace(worker_slot(service, "slot-0", stop, pipeline), observer=observer))

    slot = threading.Thread(target=be_a_slot)
    slot.start()
    slot.join(40)
    stop.set()
    slot.join()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["b"])
    assert (
        len([what for what in told if what != ("settle",)]) == 10
    )  # taken, attempted, two or three stages, ended
