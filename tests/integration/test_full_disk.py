"""Workers on a full disk retry jobs later, and the service goes on when there is space."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.errors import BrokerUnavailable, ConfigurationError
from ctdeface_worker.report.model import State
from ctdeface_worker.service.consumer import RECEIVE_SECONDS
from tests.integration.small_disk import fill_up, small_disk
from tests.support.service.local_service import LocalService, configured_service
from tests.support.service.spools import Ends, drop, ends, job_for, reports

CTDEFACE = Path(sys.executable).with_name("ctdeface")
MEGABYTES = 8


def lock_of_chain(chain: Path) -> str:
    """The lock that a living worker holds of the chain it writes."""
    return sha256(f"audit {chain.name}".encode()).hexdigest()[:32]


@pytest.fixture
def disks() -> Iterator[ExitStack]:
    """Small disks, unmounted at the end."""
    with ExitStack() as stack:
        yield stack


def fleet_in(folder: Path, stack: ExitStack) -> LocalService:
    """Workers that try again soon and for long."""
    service = configured_service(
        folder, None, work={"max_attempts": 100}, spool={"state_dir": str(folder / "state")}
    )
    local_service = LocalService(folder=folder, service=service)
    service.prepare()
    stack.callback(local_service.stop)
    return local_service


@pytest.mark.parametrize(
    ("full", "left_bytes"), [("", 0), ("", 300_000), ("work", 0), ("reports", 0)]
)
def test_a_job_waits_while_the_disk_is_full_and_is_released_afterwards(
    tmp_path: Path, disks: ExitStack, full: str, left_bytes: int
) -> None:
    """No attempt is half-written, whichever folder of the spool is full."""
    disk = disks.enter_context(small_disk(tmp_path / "spool" / full, MEGABYTES))
    local_service = fleet_in(tmp_path, disks)
    for number in range(2):
        drop(local_service.spool, f"case {number}", files=3)
        (local_service.spool.inbox / f"case {number}" / "large.dcm").write_bytes(
            bytes(range(256)) * 2048
        )
    jobs = [job_for(local_service.spool, f"case {number}") for number in range(2)]
    filler = fill_up(disk, left_bytes)
    local_service.publish(*jobs)
    local_service.start()
    local_service.until(
        lambda: all(
            local_service.logged("job_settled", job.job_id).count("Retry") >= 2 for job in jobs
        )
    )
    cases = ["case 0", "case 1"]
    assert ends(local_service.spool) == Ends(inbox=[], outbox=[], quarantine=[], taken=cases)
    assert not list(local_service.spool.reports.glob("*/*/report.json"))
    filler.unlink()
    local_service.until(local_service.is_idle)
    assert ends(local_service.spool) == Ends(inbox=[], outbox=["case 0", "case 1"], quarantine=[])
    for number in range(2):
        assert [report.state for report in reports(local_service.spool, f"case {number}")] == [
            State.DONE
        ]
        assert sorted(
            path.name for path in (local_service.spool.outbox / f"case {number}").iterdir()
        ) == [
            "0.dcm",
            "1.dcm",
            "large.dcm",
            "plan.txt",
        ]
    assert [*local_service.spool.staging.iterdir(), *local_service.spool.work.iterdir()] == []
    assert {path.name for path in local_service.spool.locks.iterdir()} == {
        lock_of_chain(chain) for chain in local_service.spool.audit.iterdir()
    }
    assert not list(tmp_path.rglob("*.part"))
    assert local_service.restarts == 0


def test_a_full_state_folder_refuses_new_jobs_and_loses_none(
    tmp_path: Path, disks: ExitStack
) -> None:
    """The watcher learns of it; a worker retries slowly, publishes once and goes on by itself."""
    disk = disks.enter_context(small_disk(tmp_path / "state", 1))
    local_service = fleet_in(tmp_path, disks)
    for name, plan in (("a", "slow"), ("b", "release")):
        drop(local_service.spool, name, plan)
    first, second = job_for(local_service.spool, "a"), job_for(local_service.spool, "b")
    local_service.publish(first)
    local_service.start()
    local_service.until(lambda: local_service.logged("stage_begun", first.job_id) != [])
    with closing(open_broker(local_service.service.queue)) as sender:
        filler = fill_up(disk)
        with pytest.raises(BrokerUnavailable, match="full"):
            sender.publish(second)
        local_service.until(
            lambda: (
                "TooLate" in local_service.logged("job_settled", first.job_id)
                and local_service.log.count("queue_not_reachable") >= 1
            )
        )
        already = local_service.log.count("queue_not_reachable")
        time.sleep(2 * RECEIVE_SECONDS)
        assert 1 <= local_service.log.count("queue_not_reachable") - already <= 3
        filler.unlink()
        sender.publish(second)
    local_service.until(local_service.is_idle)
    assert ends(local_service.spool) == Ends(inbox=[], outbox=["a", "b"], quarantine=[])
    assert (
        local_service.logged("attempt_begun", first.job_id),
        local_service.logged("job_settled", first.job_id),
    ) == (
        [1],
        ["TooLate", "Ack"],
    )
    assert local_service.restarts == 0


def test_a_spool_on_several_file_systems_is_refused_at_the_start(
    tmp_path: Path, disks: ExitStack
) -> None:
    """Exit code 78 and a sentence that names both folders, as nothing could be renamed."""
    for part in ("inbox", "staging", "archive", "quarantine"):
        disks.enter_context(small_disk(tmp_path / part / "spool" / part, 1))
        with pytest.raises(
            ConfigurationError,
            match=rf"spool/{part} .*are on different file systems|spool/{part} are on different",
        ):
            configured_service(tmp_path / part, None).prepare()
    command = [str(CTDEFACE), "work", "--spool", str(tmp_path / "staging" / "spool")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr.count("\n")) == (78, 1)
    assert "are on different file systems, so cases cannot be published atomically" in ended.stderr


def test_two_mounts_of_one_file_system_are_refused_at_the_start(
    tmp_path: Path, disks: ExitStack
) -> None:
    """Two mounts of one file system are recognized by a rename that leaves no trace."""
    disk = disks.enter_context(small_disk(tmp_path / "disk", 1))
    for part in ("inbox", "staging", "archive", "quarantine"):
        place = disk / part / "spool" / part
        place.mkdir(parents=True)
        (disk / part / "source").mkdir()
        subprocess.run(["mount", "--bind", str(disk / part / "source"), str(place)], check=True)
        disks.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        with pytest.raises(
            ConfigurationError,
            match=rf"spool/{part} .*are on different file systems|spool/{part} are on different",
        ):
            configured_service(disk / part, None).prepare()
        assert not list((disk / part).rglob(".*"))


def test_a_disk_below_the_limit_keeps_jobs_in_the_queue(tmp_path: Path, disks: ExitStack) -> None:
    """Below `min_free_gb` nothing begins and no attempt is lost; above it work goes on."""
    disk = disks.enter_context(small_disk(tmp_path / "spool", MEGABYTES))
    service = configured_service(
        tmp_path,
        None,
        output={"min_free_gb": MEGABYTES / 2000},
        spool={"state_dir": str(tmp_path / "state")},
    )
    local_service = LocalService(folder=tmp_path, service=service)
    service.prepare()
    disks.callback(local_service.stop)
    drop(local_service.spool, "a")
    filler = fill_up(disk, leave_bytes=2_000_000)
    job = job_for(local_service.spool, "a")
    local_service.publish(job)
    local_service.start()
    local_service.until(lambda: "paused_for_disk_space" in local_service.log)
    assert local_service.logged("attempt_begun", job.job_id) == []
    filler.unlink()
    local_service.until(local_service.is_idle)
    assert (
        ends(local_service.spool).outbox,
        local_service.logged("attempt_begun", job.job_id),
    ) == (
        ["a"],
        [1],
    )
