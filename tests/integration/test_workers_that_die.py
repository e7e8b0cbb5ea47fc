"""A job that kills its child or worker ends after its attempts; other jobs go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_brokers import put_raw
from tests.support.service.local_service import LocalService, configured_service
from tests.support.service.spools import Ends, drop, ends, job_for, reports

BAD = {
    "memory": "OutOfMemory",
    "segfault": "WorkerCrashed",
    "hang": "WorkerTimedOut",
    "kill parent": "WorkerCrashed",
}


@pytest.fixture(params=["sqlite", "rabbitmq"])
def local_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalService]:
    """Workers that are yet to be started, on a fresh queue of each kind."""
    url = None if request.param == "sqlite" else request.getfixturevalue("clean_rabbitmq").url
    made = LocalService(
        folder=tmp_path, service=configured_service(tmp_path, url, work={"job_timeout": 4})
    )
    made.service.prepare()
    yield made
    made.stop()


def test_jobs_that_kill_their_child_or_their_worker_end_in_quarantine_while_others_are_released(
    local_service: LocalService,
) -> None:
    """Each is tried as often as allowed, a broken message is dead-lettered, the queue is empty."""
    good = [f"good {number}" for number in range(4)]
    for name in BAD:
        drop(local_service.spool, name, name)
    for name in good:
        drop(local_service.spool, name)
    put_raw(local_service.service.queue, b"\xff no job")
    local_service.publish(*(job_for(local_service.spool, name) for name in (*BAD, *good)))
    local_service.start()
    local_service.start()
    local_service.until(local_service.is_idle)
    assert ends(local_service.spool) == Ends(inbox=[], outbox=good, quarantine=sorted(BAD))
    for name, code in BAD.items():
        (report,) = reports(local_service.spool, name)
        assert (
            report.result.code,
            (local_service.spool.reports / name / report.job_id / "attempts.log")
            .read_text()
            .count("begun"),
        ) == (code, 2)
        assert (
            local_service.spool.quarantine / name / report.job_id / "originals" / "plan.txt"
        ).is_file()
    assert local_service.restarts == 2
    assert [(letter.body, letter.code) for letter in local_service.dead_letters()] == [
        (b"\xff no job", "InvalidMessage")
    ]
