"""How often a job was begun, as its folder records it."""

from pathlib import Path

from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.attempt_log import Attempts
from ctdeface_worker.service.attempts import Attempt


def test_attempts_are_counted_unless_they_were_handed_back(tmp_path: Path) -> None:
    """A stop costs no attempt."""
    folder = tmp_path / "case" / "job"
    assert attempt_log.read(folder) == Attempts()
    attempt_log.begin(folder)
    attempt_log.begin(folder)
    assert attempt_log.read(folder) == Attempts(count=2, is_open=True)
    attempt_log.hand_back(folder)
    assert attempt_log.read(folder) == Attempts(count=1, is_open=False)


def test_a_failed_attempt_is_recorded_with_its_code(
    tmp_path: Path,
) -> None:
    """Between two attempts the job is still open, and a person can see why it is repeated."""
    attempt_log.begin(tmp_path)
    attempt_log.fail(tmp_path, "OutOfMemory")
    assert attempt_log.read(tmp_path) == Attempts(
        count=1, is_open=True, has_failed=True, code="OutOfMemory"
    )
    attempt_log.begin(tmp_path)
    assert attempt_log.read(tmp_path) == Attempts(count=2, is_open=True, code="OutOfMemory")


def test_an_attempt_on_record_is_handed_back_although_its_write_failed(tmp_path: Path) -> None:
    """The line arrived and its fsync failed: the record decides, and no attempt is lost."""
    attempt = Attempt.after(tmp_path, 1)
    attempt.hand_back()
    assert attempt_log.read(tmp_path) == Attempts()
    attempt_log.begin(tmp_path)
    attempt.hand_back()
    assert attempt_log.read(tmp_path).count == 0
    assert Attempt.after(tmp_path, 1).number == 1


def test_attempts_are_counted_on_the_disk_and_not_by_deliveries(tmp_path: Path) -> None:
    """A worker that closes before it begins costs the job nothing."""
    attempt_log.begin(tmp_path)
    assert [Attempt.after(tmp_path, delivery).number for delivery in (1, 5, 20)] == [2, 2, 2]


def test_a_job_that_only_kills_its_workers_still_ends(tmp_path: Path) -> None:
    """The queue's count decides when no attempt is ever recorded."""
    assert [Attempt.after(tmp_path, delivery).number for delivery in (20, 23, 30)] == [1, 4, 11]
