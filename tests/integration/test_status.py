"""`ctdeface status` on a real spool with an embedded queue."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ctdeface_shared.broker.settlement import Reject
from ctdeface_shared.broker.sqlite import SqliteBroker
from ctdeface_shared.commands.main import main
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.settings.service import find_service
from ctdeface_shared.status.service_status import service_status, status_lines
from ctdeface_shared.status.watcher_state import WATCHER_STATE, WatcherState, write_watcher_state
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, WATCHER_LOCK, locked
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.case.child_process import WorkerCrashed
from ctdeface_worker.publishing.journal import record
from ctdeface_worker.publishing.quarantine import show
from ctdeface_worker.report.model import CaseReport, failed
from ctdeface_worker.report.model import describe as describe_job
from tests.integration.test_batch_case import without_privileges
from tests.support.service.spools import OPTIONS, drop, job_for


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """The spool of a service that was started once."""
    made = ServiceSpool.under(tmp_path / "spool")
    made.prepare(outbox_mode=0o750)
    made.prepare_inbox(moves_originals=True)
    (tmp_path / "spool" / "state").mkdir()
    return made


def refuse(spool: ServiceSpool, name: str) -> CaseReport:
    """Bring a case into the quarantine as a worker does."""
    drop(spool, name)
    job = job_for(spool, name)
    report = describe_job(
        job.job_id,
        name,
        job.manifest,
        OPTIONS,
        failed(WorkerCrashed("the process ended with signal 9")),
    )
    report = replace(report, taken=job.taken)
    record(spool, report)
    show(spool, report, Originals.ARCHIVE)
    taken_case(spool, job.taken).remove()
    return report


@contextmanager
def running_watcher(spool: ServiceSpool) -> Iterator[None]:
    """Hold the lock that a running watcher holds."""
    with locked(spool.locks, WATCHER_LOCK, stale_seconds=MISSED_HEARTBEATS_SECONDS):
        yield


def said(spool: ServiceSpool, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Return the output of the command, which always ends with 0."""
    assert main(["status", "--spool", str(spool.inbox.parent), *more]) == 0
    return capsys.readouterr().out


def test_counts_refused_cases_with_reasons_and_the_queue_are_shown(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, reasons and the queue are on one screen."""
    refuse(spool, "bad")
    drop(spool, "good")
    queue = SqliteBroker(spool.inbox.parent / "state" / "queue.sqlite3")
    queue.publish(job_for(spool, "good"))
    drop(spool, "next")
    text = said(spool, capsys)
    queue.close()
    assert "waiting         1, the oldest for " in text
    assert "in flight       1: 1 queued\n" in text
    assert "refused         1: 1 WorkerCrashed\n  bad  " in text
    assert "  WorkerCrashed: the process ended with signal 9\n    see " in text
    assert "queue           1 ready, 0 held, 0 delayed, 0 dead\n" in text
    assert "GB free at outbox" in text


def test_the_same_is_there_for_programs(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """One JSON object on one line."""
    refuse(spool, "bad")
    plain = json.loads(said(spool, capsys, "--json"))
    assert (plain["waiting"], plain["refused"], plain["refused_codes"]) == (
        0,
        1,
        {"WorkerCrashed": 1},
    )
    assert plain["refused_cases"][0]["case"] == "bad"
    assert plain["queue"]["silent"] == "not created yet on this machine"


def test_a_queue_that_is_not_reachable_is_a_line_and_no_failure(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its password is not shown."""
    text = said(spool, capsys, "--broker", "amqp://me:secret@127.0.0.1:1")
    assert "queue           not reachable: " in text
    assert "secret" not in text


def test_looking_makes_no_queue(spool: ServiceSpool, capsys: pytest.CaptureFixture[str]) -> None:
    """A status leaves nothing behind."""
    before = sorted(spool.inbox.parent.rglob("*"))
    said(spool, capsys)
    assert sorted(spool.inbox.parent.rglob("*")) == before


def test_a_place_without_a_service_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the option to use."""
    assert main(["status", "--spool", str(tmp_path / "nothing")]) == 78
    assert "--spool" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["replay", "a"]])
def test_a_user_who_may_not_look_is_told_so(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is one line, not a traceback."""
    root = tmp_path / "spool"
    (root / "inbox").mkdir(parents=True)
    root.chmod(0)
    with without_privileges():
        assert main([*command, "--spool", str(root)]) == 78
    root.chmod(0o700)
    assert "run this as the user of the service" in capsys.readouterr().err


def test_what_the_watcher_saw_is_told(spool: ServiceSpool) -> None:
    """Strays, cases that never settled, a pause and a missing watcher are warnings."""
    service = find_service(None, spool.inbox.parent)
    looked = datetime(2026, 11, 21, 8, tzinfo=UTC)
    state = WatcherState(
        looked_at=looked.isoformat(),
        never_settled={"slow": 90_000.0},
        strays=("loose.dcm",),
        unusable={"bad.zip": "the zip file is encrypted"},
        paused="disk",
        open_jobs=3,
        oldest_open_at=looked.timestamp() - 60,
    )
    write_watcher_state(service.state_dir / WATCHER_STATE, state)
    shown = status_lines(service_status(service, looked.timestamp() + 7200))
    assert (
        "watcher         not running; scanned 2 h 0 min ago, 3 jobs open, the oldest for 2 h 1 min"
    ) in shown
    assert [line for line in shown if line.startswith("warning")] == [
        "warning: no watcher is running: start ctdeface up or ctdeface watch",
        (
            "warning: the watcher publishes nothing now: disk: "
            "less than output.min_free_gb is free: make space"
        ),
        "warning: loose.dcm is loose in the inbox: put the files of a case into a folder",
        "warning: slow is not complete after watch.max_wait: finish or remove the copy",
        "warning: bad.zip cannot be used: the zip file is encrypted",
    ]


def test_a_watcher_that_looks_gives_no_warning(spool: ServiceSpool) -> None:
    """A case that was dropped just now is no reason for one either."""
    service = find_service(None, spool.inbox.parent)
    drop(spool, "a")
    write_watcher_state(
        service.state_dir / WATCHER_STATE,
        WatcherState(looked_at=datetime.now(UTC).isoformat(), waiting=("a",)),
    )
    with running_watcher(spool):
        assert service_status(service, time.time()).warnings == ()


def test_kept_originals_that_the_watcher_has_taken_do_not_wait(spool: ServiceSpool) -> None:
    """It names them; status reads no content."""
    service = find_service(None, spool.inbox.parent)
    for name in ("a", "b"):
        drop(spool, name)
    write_watcher_state(
        service.state_dir / WATCHER_STATE,
        WatcherState(looked_at=datetime.now(UTC).isoformat(), kept=("a",)),
    )
    assert service_status(service, time.time()).spool.waiting == ("b",)


def test_cases_that_wait_long_without_a_watcher_are_told(spool: ServiceSpool) -> None:
    """It was not started, or it runs elsewhere."""
    service = find_service(None, spool.inbox.parent)
    drop(spool, "a")
    (warning,) = service_status(service, time.time() + 600).warnings
    assert "no watcher is running: start ctdeface up" in warning


def test_a_watcher_that_stops_is_reported_immediately(spool: ServiceSpool) -> None:
    """Its lock is gone with it, so the warning does not wait for missed scans."""
    service = find_service(None, spool.inbox.parent)
    write_watcher_state(
        service.state_dir / WATCHER_STATE, WatcherState(looked_at=datetime.now(UTC).isoformat())
    )
    (warning,) = service_status(service, time.time()).warnings
    assert warning == "no watcher is running: start ctdeface up or ctdeface watch"


def test_a_watcher_that_hangs_is_reported(spool: ServiceSpool) -> None:
    """It holds its lock and does not scan."""
    service = find_service(None, spool.inbox.parent)
    looked = datetime(2026, 11, 21, 8, tzinfo=UTC)
    write_watcher_state(
        service.state_dir / WATCHER_STATE, WatcherState(looked_at=looked.isoformat())
    )
    with running_watcher(spool):
        (warning,) = service_status(service, looked.timestamp() + 7200).warnings
    assert warning.startswith("the watcher has not scanned for 2 h 0 min, at most ")


def test_a_refused_case_is_shown_with_its_time_its_report_and_its_quarantine(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output names the file to open."""
    report = refuse(spool, "bad")
    folder = spool.quarantine / "bad" / report.job_id
    text = said(spool, capsys)
    assert f"    see {folder / 'report.html'}\n" in text
    (plain,) = json.loads(said(spool, capsys, "--json"))["refused_cases"]
    assert (plain["quarantine"], plain["report"]) == (str(folder), str(folder / "report.html"))
    ended = datetime.fromtimestamp(plain["ended_at"]).astimezone()
    assert f"  bad  {ended:%Y-%m-%d %H:%M}  WorkerCrashed: " in text
    (folder / "report.html").unlink()  # as for drops that the watcher refuses
    assert f"    see {folder / 'report.json'}\n" in said(spool, capsys)


def test_a_retry_is_shown_with_its_attempt_and_cause(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """First between two attempts, then during the second one."""
    drop(spool, "a")
    folder = spool.reports / "a" / job_for(spool, "a").job_id
    attempt_log.begin(folder)
    text = said(spool, capsys)
    assert "in flight       1\n" in text
    assert "attempt" not in text
    attempt_log.fail(folder, "OutOfMemory")
    assert "  a  attempt 1 failed with OutOfMemory and will be repeated\n" in said(spool, capsys)
    attempt_log.begin(folder)
    assert "  a  attempt 2; the one before failed with OutOfMemory\n" in said(spool, capsys)


def test_an_empty_folder_does_not_wait_in_text_or_json(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is reported with what to do, although the watcher still looks at it."""
    (spool.inbox / "empty").mkdir()
    service = find_service(None, spool.inbox.parent)
    write_watcher_state(
        service.state_dir / WATCHER_STATE,
        WatcherState(looked_at=datetime.now(UTC).isoformat(), waiting=("empty",)),
    )
    plain = json.loads(said(spool, capsys, "--json"))
    assert (plain["waiting"], plain["watcher"]["waiting"], plain["empty"]) == (0, [], ["empty"])
    assert "warning: empty holds no file: copy a case into it, or remove it" in said(spool, capsys)


def test_dead_letters_are_told(spool: ServiceSpool) -> None:
    """With the command that shows them."""
    service = find_service(None, spool.inbox.parent)
    drop(spool, "a")
    queue = SqliteBroker(service.state_dir / "queue.sqlite3")
    queue.publish(job_for(spool, "a"))
    delivery = queue.receive(1.0)
    assert delivery is not None
    queue.settle(delivery, Reject("UnexpectedError"))
    queue.close()
    (warning,) = service_status(service, time.time()).warnings
    assert "ctdeface replay --dead --dry-run" in warning


def test_a_full_disk_is_told(spool: ServiceSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured against the setting that stops the service."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "1e9")
    (warning,) = service_status(find_service(None, spool.inbox.parent), time.time()).warnings
    assert "no new case begins" in warning


def test_names_that_would_move_the_cursor_are_spelled_out(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names from the inbox cannot control the terminal."""
    refuse(spool, "a\x1b[2Jb")
    assert "a\\x1b[2Jb" in said(spool, capsys)
