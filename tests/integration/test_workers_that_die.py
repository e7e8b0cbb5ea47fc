"""Worker processes over each real queue: whatever a job does to its child or its worker, it ends after the bound and the others go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_brokers import put_raw
from tests.service.fleet import Fleet, found_site
from tests.service.spools import Ends, drop, ends, job_for, reports

BAD = {
    "memory": "OutOfMemory",
    "segfault": "WorkerCrashed",
    "hang": "WorkerTimedOut",
    "kill parent": "WorkerCrashed",
}


@pytest.fixture(params=["sqlite", "rabbitmq"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Workers that are yet to be started, on a fresh queue of each kind."""
    url = None if request.param == "sqlite" else request.getfixturevalue("clean_rabbitmq").url
    made = Fleet(folder=tmp_path, site=found_site(tmp_path, url, work={"job_timeout": 4}))
    made.site.prepare()
    yield made
    made.stop()


def test_jobs_that_kill_their_child_or_their_worker_end_in_quarantine_while_others_are_released(fleet: Fleet) -> None:
    """Each is tried as often as allowed and no more; what is no job is a dead letter; at the end nothing is in the queue."""
    good = [f"good {number}" for number in range(4)]
    for name in BAD:
        drop(fleet.spool, name, name)
    for name in good:
        drop(fleet.spool, name)
    put_raw(fleet.site.queue, b"\xff no job")
    fleet.publish(*(job_for(fleet.spool, name) for name in (*BAD, *good)))
    fleet.start()
    fleet.start()
    fleet.until(fleet.is_idle)
    assert ends(fleet.spool) == Ends(inbox=[], outbox=good, quarantine=sorted(BAD))
    for name, code in BAD.items():
        (report,) = reports(fleet.spool, name)
        assert (report.result.code, (fleet.spool.reports / name / report.job_id / "attempts.log").read_text().count("begun")) == (code, 2)
        assert (fleet.spool.quarantine / name / report.job_id / "originals" / "plan.txt").is_file()
    assert fleet.restarts == 2
    assert [(letter.body, letter.code) for letter in fleet.dead_letters()] == [(b"\xff no job", "InvalidMessage")]
