"""A case, report or taken folder that cannot be used stops no other one."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from ctdeface_shared.jobs.history import JobReader
from ctdeface_shared.jobs.taken import TakenCase, new_record
from ctdeface_shared.local_service.display import Lines
from ctdeface_shared.local_service.run import LocalService, RunMonitor, ended_jobs
from ctdeface_shared.status.service_status import service_status, status_lines
from ctdeface_shared.status.spool_status import Refused, SpoolScanner
from ctdeface_shared.status.text import refused_lines
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.ledger import Entry, Ledger
from ctdeface_watcher.metrics import WatcherMetrics
from tests.support.service.damage import nested_folders
from tests.support.service.local_service import configured_service
from tests.support.service.watcher import RunningWatcher, fill, wait_for

DATES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "2026-11-28T08:00:00")


def report(folder: Path, created_at: str) -> Path:
    """Write a report with a time."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "state": "done",
        "generation": 0,
        "created_at": created_at,
        "manifest": {"files": 1, "bytes": 1, "digest": "d" * 64},
        "result": {"code": ""},
    }
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "report.json"


@contextmanager
def counting(watcher: RunningWatcher) -> Iterator[tuple[CollectorRegistry, WatcherMetrics]]:
    """Run a watcher with its metrics."""
    registry = CollectorRegistry()
    metrics = WatcherMetrics(registry)
    watcher.hooks = (metrics.count,)
    watcher.start()
    try:
        yield registry, metrics
    finally:
        watcher.end()


@pytest.mark.parametrize("date", DATES)
def test_an_absurd_time_in_a_report_keeps_no_case_waiting(
    watcher: RunningWatcher, date: str
) -> None:
    """An OverflowError once left every case that is sorted after it unseen for ever."""
    report(watcher.spool.reports / "a" / str(uuid4()), date)
    for case in ("a", "b", "c"):
        fill(watcher.spool.inbox / case)
    watcher.start()
    watcher.expect("a", "b", "c")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("record", ["pipe", "folder", "wrong types", "loop"])
def test_a_damaged_taken_case_is_named_and_the_others_go_on(
    watcher: RunningWatcher, record: str
) -> None:
    """Its files stay where they are; /readyz warns, and a metric rises."""
    taken = TakenCase.create(watcher.spool, new_record("a", "a"))
    fill(taken.files)
    file = taken.folder / "drop.json"
    file.unlink()
    makers: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "wrong types": lambda: file.write_text('{"entry": 1, "case": []}', encoding="utf-8"),
        "loop": lambda: file.symlink_to(file.name),
    }
    makers[record]()
    fill(watcher.spool.inbox / "b")
    with counting(watcher) as (registry, metrics):
        watcher.expect("b")
        wait_for(lambda: metrics.left_out() is not None)
        assert registry.get_sample_value("ctdeface_watcher_skipped", {"place": "taken"}) == 1
        assert registry.get_sample_value("ctdeface_watcher_skips_total", {"code": "other"})
        (one,) = watcher.seen.skipped
        assert (one.place, one.name) == ("taken", taken.taken_id)
        assert metrics.watching() is None
    assert (taken.files / "0.dcm").exists()


@pytest.mark.timeout(60)
def test_an_open_job_with_a_damaged_report_keeps_no_other_job_open(
    watcher: RunningWatcher,
) -> None:
    """It is named, and closed when its report can be read again."""
    jobs = {case: str(uuid4()) for case in ("a", "b")}
    files = {
        case: report(watcher.spool.reports / case / job, DATES[2]) for case, job in jobs.items()
    }
    report(files["b"].parent, "2026-11-28T08:00:00+00:00")
    files["a"].write_bytes(b"[" * 100_000)
    with Ledger(watcher.state) as ledger:
        for number, (case, job) in enumerate(jobs.items()):
            ledger.add(
                Entry(job_id=job, case=case, digest="d", generation=0, published_at=float(number))
            )
    with counting(watcher) as (registry, _):
        wait_for(lambda: bool(watcher.seen.skipped) and watcher.seen.open_jobs == 1)
        (one,) = watcher.seen.skipped
        assert (one.place, one.name) == ("reports", f"a/{jobs['a']}")
        assert registry.get_sample_value("ctdeface_watcher_skipped", {"place": "reports"}) == 1
        report(files["a"].parent, "2026-11-28T08:00:00+00:00")
        wait_for(lambda: not watcher.seen.skipped and watcher.seen.open_jobs == 0)
        assert watcher.seen.open_jobs == 0


@pytest.mark.timeout(120)
def test_folders_of_any_depth_end_neither_status_nor_view(tmp_path: Path) -> None:
    """A folder nested 3 000 deep in inbox, reports or taken once ended both."""
    service = configured_service(tmp_path, None)
    service.prepare()
    spool = service.spool
    spool.inbox.mkdir(exist_ok=True)
    fill(spool.inbox / "b")
    (spool.reports / "x").mkdir()
    with (
        nested_folders(spool.inbox / "a"),
        nested_folders(spool.reports / "x" / "deep"),
        nested_folders(spool.outbox / "deep"),
        nested_folders(spool.taken / "deep"),
    ):
        status = service_status(service, time.time())
        assert status.spool.waiting == ("a", "b")
        assert [one.place for one in status.spool.skipped] == ["reports"]
        assert any("reports/x/deep/" in line for line in status_lines(status))
        jobs, view = JobReader(spool.reports), Lines(spool, once=False)
        monitor = RunMonitor(
            local_service=LocalService(service=service),
            view=view,
            stop=threading.Event(),
            scanner=SpoolScanner(spool),
            jobs=jobs,
            shown=ended_jobs(jobs),
        )
        monitor.tick(())
        assert view.last[0] == 2


def test_a_time_that_no_calendar_has_is_shown_as_unknown(tmp_path: Path) -> None:
    """File systems keep times of any year, and the status of all cases once ended with one."""
    refused = Refused(
        case="a", job_id="j", code="C", reason="r", ended_at=1e15, quarantine="q", report="p"
    )
    status = replace(SpoolScanner(ServiceSpool.under(tmp_path)).look(1.0), refused=(refused,))
    assert "unknown time" in next(refused_lines(status, 1))
