"""What `ctdeface status` says about a real spool with an embedded queue and what a watcher wrote down."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ctdeface_shared.broker.settlement import Reject
from ctdeface_shared.broker.sqlite import SqliteBroker
from ctdeface_shared.commands.main import main
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.settings.service import find_service
from ctdeface_shared.status.service_status import describe, take_overview
from ctdeface_shared.status.watcher_state import WATCHER_STATE, WatcherState, write_watcher_state
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
    made.prepare_inbox(Originals.ARCHIVE)
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
    record(spool, report)
    show(spool, report, Originals.ARCHIVE)
    return report


def said(spool: ServiceSpool, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What the command prints; it always ends with 0."""
    assert main(["status", "--spool", str(spool.inbox.parent), *more]) == 0
    return capsys.readouterr().out


def test_counts_refused_cases_with_reasons_and_the_queue_are_shown(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person sees at one look what waits and what is wrong."""
    refuse(spool, "bad")
    drop(spool, "good")
    queue = SqliteBroker(spool.inbox.parent / "state" / "queue.sqlite3")
    queue.publish(job_for(spool, "good"))
    text = said(spool, capsys)
    queue.close()
    assert "waiting         1, the oldest for " in text
    assert (
        "refused         1: 1 WorkerCrashed\n  bad  WorkerCrashed: the process ended with signal 9\n"
        in text
    )
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
    assert plain["queue"]["silent"] == "not made yet on this machine"


def test_a_queue_that_is_not_reachable_is_a_line_and_no_failure(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its password is not shown."""
    text = said(spool, capsys, "--broker", "amqp://me:secret@127.0.0.1:1")
    assert "queue           not reachable: " in text
    assert "secret" not in text


def test_looking_makes_no_queue(spool: ServiceSpool, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever only looks leaves nothing behind."""
    before = sorted(spool.inbox.parent.rglob("*"))
    said(spool, capsys)
    assert sorted(spool.inbox.parent.rglob("*")) == before


def test_a_place_without_a_service_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to do."""
    assert main(["status", "--spool", str(tmp_path / "nothing")]) == 78
    assert "--spool" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["replay", "a"]])
def test_a_user_who_may_not_look_is_told_so(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line, not with a traceback."""
    root = tmp_path / "spool"
    (root / "inbox").mkdir(parents=True)
    root.chmod(0)
    with without_privileges():
        assert main([*command, "--spool", str(root)]) == 78
    root.chmod(0o700)
    assert "run it as the user of the service" in capsys.readouterr().err


def test_what_the_watcher_saw_is_told(spool: ServiceSpool) -> None:
    """Strays, cases that never settled, a pause and a silence are warnings."""
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
    shown = describe(take_overview(service, looked.timestamp() + 7200))
    assert "watcher         looked 2 h 0 min ago, 3 jobs open, the oldest for 2 h 1 min" in shown
    assert [line for line in shown if line.startswith("warning")] == [
        "warning: the watcher has not looked for 2 h 0 min: is it running?",
        "warning: the watcher publishes nothing now: disk",
        "warning: loose.dcm lie in the inbox and are no cases",
        "warning: slow never became complete and are left alone",
        "warning: bad.zip (the zip file is encrypted) cannot be used",
    ]


def test_a_watcher_that_looks_gives_no_warning(spool: ServiceSpool) -> None:
    """Nor does a case that was dropped just now."""
    service = find_service(None, spool.inbox.parent)
    drop(spool, "a")
    write_watcher_state(
        service.state_dir / WATCHER_STATE,
        WatcherState(looked_at=datetime.now(UTC).isoformat(), waiting=("a",)),
    )
    assert take_overview(service, time.time()).warnings == ()


def test_cases_that_wait_long_without_a_watcher_are_told(spool: ServiceSpool) -> None:
    """Somebody forgot to start it, or it runs elsewhere."""
    service = find_service(None, spool.inbox.parent)
    drop(spool, "a")
    (warning,) = take_overview(service, time.time() + 600).warnings
    assert "is ctdeface watch running?" in warning


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
    (warning,) = take_overview(service, time.time()).warnings
    assert "ctdeface replay --dead --dry-run" in warning


def test_a_full_disk_is_told(spool: ServiceSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured against the setting that stops the service."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "1e9")
    (warning,) = take_overview(find_service(None, spool.inbox.parent), time.time()).warnings
    assert "nothing new is begun" in warning


def test_names_that_would_move_the_cursor_are_spelled_out(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name from the inbox is no command to the terminal."""
    refuse(spool, "a\x1b[2Jb")
    assert "a\\x1b[2Jb" in said(spool, capsys)
