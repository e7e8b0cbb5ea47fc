"""Jobs that were lost with their queue are published again."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.protocols import DeadLetter, Depth
from ctdeface_shared.broker.settlement import Ack, Reject
from ctdeface_shared.errors import BrokerUnavailable
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.report.model import State, describe
from ctdeface_worker.service.attempts import claimed
from tests.support.service.watcher import QUIET, RunningWatcher, fill, wait_for


def test_jobs_of_a_lost_queue_are_published_again_from_their_taken_folders(
    watcher: RunningWatcher,
) -> None:
    """As the same jobs; a case that is gone is not waited for."""
    watcher.lost_seconds = 1.0
    for name in ("a", "b", "gone"):
        fill(watcher.spool.inbox / name)
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 3)
    before = {job.case: job for job in watcher.jobs}
    watcher.end()
    time.sleep(watcher.lost_seconds)  # all of them are overdue
    watcher.broker.queue.ready.clear()
    taken_case(watcher.spool, before["gone"].taken).remove()
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 2)
    assert {job.case: job.job_id for job in watcher.jobs} == {
        name: before[name].job_id for name in ("a", "b")
    }
    assert {job.case: job.taken for job in watcher.jobs} == {
        name: before[name].taken for name in ("a", "b")
    }
    wait_for(lambda: watcher.seen.open_jobs == 2)


def test_a_job_that_ended_without_putting_its_files_away_is_published_again(
    watcher: RunningWatcher,
) -> None:
    """A worker was killed behind the report, and the queue has lost the message."""
    watcher.lost_seconds = 1.0
    fill(watcher.spool.inbox / "a")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    (job,) = watcher.jobs
    report = describe(job.job_id, "a", job.manifest, job.options, CaseResult(released=True))
    record = watcher.spool.reports / "a" / job.job_id
    record.mkdir(parents=True)
    (record / "report.json").write_bytes(replace(report, state=State.DONE).to_json())
    time.sleep(4 * QUIET + watcher.lost_seconds)
    assert watcher.jobs == [job]  # the queue still has it
    watcher.broker.queue.ready.clear()
    wait_for(lambda: watcher.jobs == [job])
    time.sleep(2 * QUIET)
    assert watcher.jobs == [job]
    watcher.broker.queue.ready.clear()
    taken_case(watcher.spool, job.taken).files.rename(watcher.spool.work / "put away")
    wait_for(lambda: not any(watcher.spool.taken.iterdir()))
    time.sleep(4 * QUIET + watcher.lost_seconds)
    assert watcher.jobs == []


def test_jobs_that_wait_are_held_or_were_given_up_are_not_published_again(
    watcher: RunningWatcher,
) -> None:
    """A dead letter, a job that a worker holds, and a waiting one, all overdue."""
    watcher.lost_seconds = 0.2
    fill(watcher.spool.inbox / "dead")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    delivery = watcher.broker.receive(5.0)
    assert delivery is not None
    watcher.broker.settle(delivery, Reject("Bug"))
    fill(watcher.spool.inbox / "held")
    wait_for(lambda: len(watcher.jobs) == 1)
    held = watcher.broker.receive(5.0)
    assert held is not None
    time.sleep(4 * QUIET)
    assert watcher.jobs == []
    assert watcher.seen.open_jobs == 2
    watcher.broker.settle(held, Ack())
    wait_for(lambda: len(watcher.jobs) == 1)
    time.sleep(4 * QUIET)
    assert [job.case for job in watcher.jobs] == ["held"]


class ForbiddenLetters(MemoryBroker):
    """A queue whose dead letters may be counted but not read."""

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Refuse."""
        raise BrokerUnavailable(f"the queue cannot be used (ACCESS_REFUSED to {limit} letters)")


def test_jobs_of_a_lost_queue_are_found_by_a_watcher_that_may_not_read_dead_letters(
    watcher: RunningWatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """While there are dead letters nothing is published again, which is logged once."""
    said: list[str] = []

    def told() -> int:
        said.append(capsys.readouterr().out)
        return "".join(said).count("lost_jobs_unknown")

    watcher.broker, watcher.lost_seconds = ForbiddenLetters(), 0.5
    fill(watcher.spool.inbox / "bad")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    given_up = watcher.broker.receive(5.0)
    assert given_up is not None
    watcher.broker.settle(given_up, Reject("Bug"))
    wait_for(lambda: told() == 1)
    time.sleep(4 * QUIET)
    assert (watcher.jobs, told()) == ([], 1)
    watcher.broker.queue.dead.clear()
    wait_for(lambda: [job.case for job in watcher.jobs] == ["bad"])


class SilentBroker(MemoryBroker):
    """A queue that does not count held messages, like RabbitMQ."""

    def depth(self) -> Depth:
        """Count what waits."""
        return replace(super().depth(), held=None)


def test_a_job_that_a_worker_has_in_hand_is_not_lost_where_the_queue_cannot_tell(
    watcher: RunningWatcher,
) -> None:
    """While its claim is fresh, or its attempt may last; handed back it is lost."""
    watcher.broker, watcher.lost_seconds = SilentBroker(), 0.2
    fill(watcher.spool.inbox / "a")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    (job,) = watcher.jobs
    record = watcher.spool.reports / "a" / job.job_id
    with claimed(watcher.spool.locks, job.job_id):
        held = watcher.broker.receive(5.0)
        time.sleep(3 * QUIET)
        assert watcher.jobs == []
        attempt_log.begin(record)
    time.sleep(3 * QUIET)
    assert watcher.jobs == []
    attempt_log.hand_back(record)
    wait_for(lambda: [again.job_id for again in watcher.jobs] == [job.job_id])
    assert held is not None
