"""Whatever fails in counting costs no job."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.metrics.harmless import harmless
from ctdeface_shared.site import find_site
from ctdeface_worker.crew import station_of
from ctdeface_worker.listener import Listener
from ctdeface_worker.service import serve
from tests.service.crew import pipeline
from tests.service.spools import Ends, drop, ends, job_for


def test_jobs_end_as_they_do_when_every_count_of_them_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is released and one refused, though each callback raises."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "0")
    site, stop, told = find_site(None, tmp_path / "spool"), threading.Event(), list[object]()
    site.prepare()
    for name, plan in {"a": "release", "b": "refuse"}.items():
        drop(site.spool, name, plan)
        broker = open_broker(site.queue)
        broker.publish(job_for(site.spool, name))
        broker.close()

    @harmless
    def fail(*what: object) -> None:
        told.append(what)
        if len(what) == 3 and ends(site.spool).inbox == []:
            stop.set()
        raise KeyError

    listener = Listener(taken=fail, attempted=fail, staged=fail, failed=fail, ended=fail, late=fail)

    def be_a_slot() -> None:
        serve(replace(station_of(site, "slot-0", stop, pipeline), listener=listener))

    slot = threading.Thread(target=be_a_slot)
    slot.start()
    slot.join(40)
    stop.set()
    slot.join()
    assert ends(site.spool) == Ends(inbox=[], outbox=["a"], quarantine=["b"])
    assert len([what for what in told if what != ("settle",)]) == 10  # taken, attempted, two or three stages, ended
