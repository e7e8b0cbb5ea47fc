"""A queue that forgot its jobs costs no case."""

import time

from ctdeface_shared.broker.settlement import Ack, Bury
from tests.service.watcher import QUIET, RunningWatcher, fill, wait_for


def test_jobs_of_a_lost_queue_are_published_again_from_the_inbox(watcher: RunningWatcher) -> None:
    """As the same jobs; a case that is no longer there is not waited for."""
    watcher.lost_seconds = 1.0
    for name in ("a", "b", "gone"):
        fill(watcher.spool.inbox / name)
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 3)
    before = {job.case: job for job in watcher.jobs}
    watcher.end()
    watcher.broker.queue.ready.clear()
    (watcher.spool.inbox / "gone").rename(watcher.spool.archive / "gone")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 2)
    assert {job.case: job.job_id for job in watcher.jobs} == {name: before[name].job_id for name in ("a", "b")}
    wait_for(lambda: watcher.seen.open_jobs == 2)


def test_jobs_that_wait_are_held_or_were_given_up_are_not_published_again(watcher: RunningWatcher) -> None:
    """One dead letter, one in the hands of a worker, one waiting, all for much longer than the patience."""
    watcher.lost_seconds = 0.2
    fill(watcher.spool.inbox / "dead")
    watcher.start()
    wait_for(lambda: len(watcher.jobs) == 1)
    delivery = watcher.broker.receive(5.0)
    assert delivery is not None
    watcher.broker.settle(delivery, Bury("Bug"))
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
