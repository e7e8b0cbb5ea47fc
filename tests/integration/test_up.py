"""`ctdeface up` runs the whole service with the real pipeline."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.history import JobReader, JobRecord
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.local_service.display import Snapshot, closing_line, end_line, screen_lines
from ctdeface_shared.local_service.run import (
    LocalService,
    ended_jobs,
    programs,
    run_local_service,
    shorten,
)
from ctdeface_shared.settings.service import find_service
from ctdeface_shared.status.service_status import disk_warnings, inbox_warnings
from ctdeface_shared.status.spool_status import Refused, SpoolStatus
from ctdeface_shared.status.watcher_state import WatcherState
from ctdeface_shared.storage.disk import FreeSpace
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.report.model import State
from tests.support.cases import write_small_cases
from tests.support.service.chaos import COMMAND, ROOT, leftovers, names
from tests.support.service.spools import ends, reports

QUICK = {
    "CTDEFACE_WATCH__QUIET_PERIOD": "0.4",
    "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.1",
    "CTDEFACE_WATCH__RESCAN_INTERVAL": "1",
    "CTDEFACE_BROKER__LEASE": "4",
    "CTDEFACE_METRICS__WATCH_PORT": "0",
    "CTDEFACE_METRICS__WORK_PORT": "0",
}


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """A spool that has only its inbox."""
    made = ServiceSpool.under(tmp_path / "spool")
    made.inbox.mkdir(parents=True)
    return made


@pytest.fixture
def start(spool: ServiceSpool) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `ctdeface up`, and kill what still runs at the end."""
    begun: list[subprocess.Popen[str]] = []

    def up(*arguments: str) -> "subprocess.Popen[str]":
        command = [str(COMMAND), "up", "--spool", str(spool.inbox.parent), *arguments]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | QUICK,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield up
    for process in begun:
        process.kill()
        process.communicate()


def test_a_log_in_the_state_folder_that_grows_too_large_is_begun_anew(tmp_path: Path) -> None:
    """It is put aside once, and open files continue; small logs stay."""
    with (tmp_path / "watcher.log").open("a", encoding="utf-8") as log:
        for written in ("first", "second"):
            log.write(written)
            log.flush()
            shorten(tmp_path, most_bytes=4)
            assert (tmp_path / "watcher.log").read_text(encoding="utf-8") == ""
            assert (tmp_path / "watcher.log.1").read_text(encoding="utf-8") == written
        log.write("third")
    shorten(tmp_path, most_bytes=5)
    assert (tmp_path / "watcher.log").read_text(encoding="utf-8") == "third"


def processes_of(spool: ServiceSpool) -> dict[int, str]:
    """Pids and command lines of the watchers and workers of a spool."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(spool.inbox.parent) in words and {"watch", "work"} & set(words):
            found[int(folder.name)] = " ".join(words)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def test_once_brings_every_case_to_its_end_although_a_worker_is_killed_and_then_ends(
    spool: ServiceSpool, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """One case is released, one refused; the summary names both, and no process remains."""
    write_small_cases(spool.inbox, 1)
    (spool.inbox / "letters").mkdir()
    (spool.inbox / "letters" / "a.txt").write_text("no image")
    running = start("--once", "--workers", "1")
    wait_for(lambda: list(spool.reports.rglob("attempts.log")))
    worker = next(pid for pid, words in processes_of(spool).items() if " work " in words)
    os.kill(worker, signal.SIGKILL)
    told, logged = running.communicate(timeout=120)

    assert running.returncode == 1
    assert f"case-01: released, see {spool.outbox / 'case-01'}\n" in told
    assert "letters: refused, NotDicom: " in told
    assert names(spool.outbox) == {"case-01"}
    assert [report.state for report in reports(spool, "case-01")] == [State.DONE]
    assert names(spool.inbox) == set()
    assert leftovers(spool) == []
    assert processes_of(spool) == {}
    last = [json.loads(line) for line in logged.splitlines() if '"status"' in line][-1]
    assert (last["released"], last["refused"], last["waiting"], last["in_flight"]) == (1, 1, 0, 0)
    assert last["restarts"] >= 1


def test_whatever_ends_the_supervisor_ends_all_of_it(
    spool: ServiceSpool, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """SIGTERM ends it in order with exit code 0; after SIGKILL no process goes on."""
    killed = start("--workers", "1")
    wait_for(lambda: list(spool.locks.glob("watcher")))
    polite = start("--workers", "2")  # its watcher waits for its turn
    wait_for(lambda: len(processes_of(spool)) == 5)
    time.sleep(3)
    polite.terminate()
    assert polite.wait(timeout=30) == 0
    assert len(processes_of(spool)) == 2
    killed.kill()
    wait_for(lambda: not processes_of(spool))


def test_a_second_service_with_the_same_ports_says_how_to_choose_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts nothing, and names a setting, because `up` has no option for ports."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("CTDEFACE_METRICS__WATCH_PORT", str(port))
        service = find_service(None, tmp_path / "spool")
        with pytest.raises(ConfigurationError, match=rf"port {port} .* set metrics.watch_port"):
            run_local_service(LocalService(service=service))
    assert not (tmp_path / "spool").exists()


def test_the_screen_shows_why_nothing_is_begun(tmp_path: Path) -> None:
    """The disk guard and a paused watcher are warnings below the numbers."""
    spool = ServiceSpool.under(tmp_path)
    status = SpoolStatus(at=0.0, refused=(refused_zip(tmp_path),))
    paused = WatcherState(looked_at="2026-11-28T09:00:00+00:00", paused="disk")
    disks = (FreeSpace(place="outbox", free_gb=0.5, least_gb=2.0),)
    warnings = (*inbox_warnings(status, paused), *disk_warnings(disks))
    lines = screen_lines(Snapshot(spool=status, warnings=warnings), spool)
    assert "warning: the watcher publishes nothing now: disk" in "\n".join(lines)
    assert (
        "warning: 0.5 GB are free at outbox, and output.min_free_gb requires 2: "
        "make space; until then no new case begins"
    ) in lines
    assert "refused         1: 1 UnsafeArchive" in lines
    assert not [line for line in lines if "more" in line]


def refused_zip(folder: Path) -> Refused:
    """A zip file that the watcher refused."""
    return Refused(
        case="bad",
        job_id="1",
        code="UnsafeArchive",
        reason="the zip file is damaged",
        ended_at=0.0,
        quarantine=str(folder),
        report=str(folder / "report.json"),
    )


def test_the_line_of_a_refused_case_names_a_report_that_exists(tmp_path: Path) -> None:
    """Drops that the watcher refuses have no page."""
    spool = ServiceSpool.under(tmp_path)
    job = JobRecord(case="bad", job_id="1", state=JobState.REFUSED, code="UnsafeArchive")
    folder = spool.quarantine / "bad" / "1"
    folder.mkdir(parents=True)
    assert end_line(job, spool).endswith(f"see {folder / 'report.json'}")
    (folder / "report.html").touch()
    assert end_line(job, spool).endswith(f"see {folder / 'report.html'}")


def test_the_closing_line_says_what_continues() -> None:
    """Ctrl-C loses nothing, and says so."""
    waiting = SpoolStatus(at=0.0, waiting=("a", "b"), released=3)
    assert closing_line(waiting) == (
        "stopped: 3 released, 0 refused; 2 waiting and 0 in flight continue when ctdeface up is "
        "started again"
    )
    assert closing_line(SpoolStatus(at=0.0, released=3)) == "stopped: 3 released, 0 refused"


def test_what_must_be_put_right_is_said_and_ends_with_78(spool: ServiceSpool) -> None:
    """An invalid setting ends the service with one line; the case waits for the next start."""
    (spool.inbox / "case").mkdir()
    (spool.inbox / "case" / "a.txt").write_text("no image")
    command = [str(COMMAND), "up", "--spool", str(spool.inbox.parent), "--once"]
    wrong = os.environ | QUICK | {"CTDEFACE_DEFACE__SEGMENTER": "crystal-ball"}
    ended = subprocess.run(
        command, cwd=ROOT, env=wrong, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 78
    assert "crystal-ball" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ends(spool).not_ended == ["case"]


def test_the_queue_of_up_is_the_one_of_the_other_commands(tmp_path: Path) -> None:
    """Status and replay look into the same file."""
    service = find_service(None, tmp_path / "spool")
    assert service.queue.url == f"sqlite://{tmp_path.resolve()}/spool/state/queue.sqlite3"


def test_each_worker_has_a_port_of_its_own_for_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first uses the port of the settings, the others the next ones; 0 turns all off."""
    monkeypatch.setenv("CTDEFACE_METRICS__WORK_PORT", "9465")
    on = programs(LocalService(service=find_service(None, tmp_path), workers=3), None)
    monkeypatch.setenv("CTDEFACE_METRICS__WORK_PORT", "0")
    off = programs(LocalService(service=find_service(None, tmp_path), workers=2), None)
    assert [program.command[-1] for program in on[1:]] == ["9465", "9466", "9467"]
    assert [program.command[-1] for program in off[1:]] == ["0", "0"]


def test_an_inbox_elsewhere_leaves_the_spool_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes get the root of the spool, not the folder above the inbox."""
    monkeypatch.setenv("CTDEFACE_SPOOL__INBOX", str(tmp_path / "drop" / "here"))
    for program in programs(
        LocalService(service=find_service(None, tmp_path / "spool"), workers=1), None
    ):
        words = program.command
        assert words[words.index("--spool") + 1] == str(tmp_path / "spool")


def test_what_had_ended_before_is_not_told_again(tmp_path: Path) -> None:
    """Only jobs that end during the run count, regardless of the file system's clock."""
    folder = tmp_path / "case" / "6f0b6a3c-0d1f-5c6e-9a53-5f0c1c1d7a10"
    folder.mkdir(parents=True)
    told = {"state": "refused", "generation": 0, "created_at": "2026-01-01T00:00:00+00:00"}
    told |= {"manifest": {"digest": "d"}, "result": {"code": "FaceNotFound", "reason": "no face"}}
    (folder / "report.json").write_text(json.dumps(told))
    jobs = JobReader(tmp_path)
    before = ended_jobs(jobs)
    os.utime(folder / "report.json", (1, 1))  # written by a clock far behind
    assert len(before) == 1
    assert len(ended_jobs(jobs) - before) == 1
