"""Workers on a disk that is full: a job is tried later, nothing is half-written, and the service goes on when there is space again."""

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
from ctdeface_worker.service import RECEIVE_SECONDS
from tests.integration.small_disk import fill_up, small_disk
from tests.service.fleet import Fleet, found_site
from tests.service.spools import Ends, drop, ends, job_for, reports

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


def fleet_in(folder: Path, stack: ExitStack) -> Fleet:
    """Workers that try again soon and for long."""
    site = found_site(folder, None, work={"max_attempts": 100}, spool={"state_dir": str(folder / "state")})
    fleet = Fleet(folder=folder, site=site)
    site.prepare()
    stack.callback(fleet.stop)
    return fleet


@pytest.mark.parametrize(("full", "left_bytes"), [("", 0), ("", 300_000), ("work", 0), ("reports", 0)])
def test_a_job_waits_while_the_disk_is_full_and_is_released_afterwards(
    tmp_path: Path, disks: ExitStack, full: str, left_bytes: int
) -> None:
    """Whether all of the spool is full, or so full that staging breaks off in the middle, or only one of its folders."""
    disk = disks.enter_context(small_disk(tmp_path / "spool" / full, MEGABYTES))
    fleet = fleet_in(tmp_path, disks)
    for number in range(2):
        drop(fleet.spool, f"case {number}", files=3)
        (fleet.spool.inbox / f"case {number}" / "large.dcm").write_bytes(bytes(range(256)) * 2048)
    jobs = [job_for(fleet.spool, f"case {number}") for number in range(2)]
    filler = fill_up(disk, left_bytes)
    fleet.publish(*jobs)
    fleet.start()
    fleet.until(lambda: all(fleet.said("job_settled", job.job_id).count("Retry") >= 2 for job in jobs))
    assert ends(fleet.spool) == Ends(inbox=["case 0", "case 1"], outbox=[], quarantine=[])
    assert not list(fleet.spool.reports.glob("*/*/report.json"))
    filler.unlink()
    fleet.until(fleet.is_idle)
    assert ends(fleet.spool) == Ends(inbox=[], outbox=["case 0", "case 1"], quarantine=[])
    for number in range(2):
        assert [report.state for report in reports(fleet.spool, f"case {number}")] == [State.DONE]
        assert sorted(path.name for path in (fleet.spool.outbox / f"case {number}").iterdir()) == [
            "0.dcm",
            "1.dcm",
            "large.dcm",
            "plan.txt",
        ]
    assert [*fleet.spool.staging.iterdir(), *fleet.spool.work.iterdir()] == []
    assert {path.name for path in fleet.spool.locks.iterdir()} == {lock_of_chain(chain) for chain in fleet.spool.audit.iterdir()}
    assert not list(tmp_path.rglob("*.part"))
    assert fleet.restarts == 0


def test_a_full_state_folder_refuses_new_jobs_and_loses_none(tmp_path: Path, disks: ExitStack) -> None:
    """Whoever publishes is told; a worker asks without haste, publishes once although its ack fails, and goes on by itself afterwards."""
    disk = disks.enter_context(small_disk(tmp_path / "state", 1))
    fleet = fleet_in(tmp_path, disks)
    for name, plan in (("a", "slow"), ("b", "release")):
        drop(fleet.spool, name, plan)
    first, second = job_for(fleet.spool, "a"), job_for(fleet.spool, "b")
    fleet.publish(first)
    fleet.start()
    fleet.until(lambda: fleet.said("stage_begun", first.job_id) != [])
    with closing(open_broker(fleet.site.queue)) as sender:
        filler = fill_up(disk)
        with pytest.raises(BrokerUnavailable, match="full"):
            sender.publish(second)
        fleet.until(lambda: "TooLate" in fleet.said("job_settled", first.job_id) and fleet.log.count("queue_not_reachable") >= 1)
        already = fleet.log.count("queue_not_reachable")
        time.sleep(2 * RECEIVE_SECONDS)
        assert 1 <= fleet.log.count("queue_not_reachable") - already <= 3
        filler.unlink()
        sender.publish(second)
    fleet.until(fleet.is_idle)
    assert ends(fleet.spool) == Ends(inbox=[], outbox=["a", "b"], quarantine=[])
    assert (fleet.said("attempt_begun", first.job_id), fleet.said("job_settled", first.job_id)) == ([1], ["TooLate", "Ack"])
    assert fleet.restarts == 0


def test_a_spool_on_several_file_systems_is_refused_at_the_start(tmp_path: Path, disks: ExitStack) -> None:
    """Nothing could be published or put away at once: exit code 78, with a sentence that names both folders."""
    for part in ("inbox", "staging", "archive", "quarantine"):
        disks.enter_context(small_disk(tmp_path / part / "spool" / part, 1))
        with pytest.raises(ConfigurationError, match=rf"spool/{part} .*lie on different file systems|spool/{part} lie on different"):
            found_site(tmp_path / part, None).prepare()
    command = [str(CTDEFACE), "work", "--spool", str(tmp_path / "staging" / "spool")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr.count("\n")) == (78, 1)
    assert "lie on different file systems, so cases could not be published at once" in ended.stderr


def test_two_mounts_of_one_file_system_are_refused_at_the_start(tmp_path: Path, disks: ExitStack) -> None:
    """They have the same number and still nothing can be renamed between them; whether it can is tried, and nothing is left of that."""
    disk = disks.enter_context(small_disk(tmp_path / "disk", 1))
    for part in ("inbox", "staging", "archive", "quarantine"):
        place = disk / part / "spool" / part
        place.mkdir(parents=True)
        (disk / part / "source").mkdir()
        subprocess.run(["mount", "--bind", str(disk / part / "source"), str(place)], check=True)
        disks.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        with pytest.raises(ConfigurationError, match=rf"spool/{part} .*lie on different file systems|spool/{part} lie on different"):
            found_site(disk / part, None).prepare()
        assert not list((disk / part).rglob(".*"))


def test_a_disk_below_the_limit_keeps_jobs_in_the_queue(tmp_path: Path, disks: ExitStack) -> None:
    """With less than `min_free_gb` free nothing is begun and no attempt is lost; with enough it goes on."""
    disk = disks.enter_context(small_disk(tmp_path / "spool", MEGABYTES))
    site = found_site(tmp_path, None, output={"min_free_gb": MEGABYTES / 2000}, spool={"state_dir": str(tmp_path / "state")})
    fleet = Fleet(folder=tmp_path, site=site)
    site.prepare()
    disks.callback(fleet.stop)
    drop(fleet.spool, "a")
    filler = fill_up(disk, leave_bytes=2_000_000)
    job = job_for(fleet.spool, "a")
    fleet.publish(job)
    fleet.start()
    fleet.until(lambda: "paused_for_disk_space" in fleet.log)
    assert fleet.said("attempt_begun", job.job_id) == []
    filler.unlink()
    fleet.until(fleet.is_idle)
    assert (ends(fleet.spool).outbox, fleet.said("attempt_begun", job.job_id)) == (["a"], [1])
