"""Metrics of a real watcher and worker agree with outbox and quarantine."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.messages import DefaceJob, encode_job
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.settings.service import ServiceConfig, find_service
from tests.integration.test_brokers import put_raw
from tests.support.service.scrapes import HOST, by_label, free_port, get, scrape, value
from tests.support.service.spools import drop, ends, reports

ROOT = Path(__file__).parents[2]
MARK = "MUSTERMANN"
ATTEMPTS = 2
PLANS = {
    "a": "release",
    "b": "release",
    "c": "refuse",
    "d": "crash",
    "e": "once crash",
    "f": "bug",
    "g": "refuse",
}
"""Names of cases, each marked, and what becomes of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Watcher and worker as processes.

    Attributes:
        config: what they work with.
        watch_port: where the watcher tells.
        work_port: where the worker tells.
    """

    config: ServiceConfig
    watch_port: int
    work_port: int

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, (
                ends(self.config.spool),
                get(self.work_port, "/metrics")[1],
                get(self.watch_port, "/readyz"),
            )
            time.sleep(0.1)

    def is_over(self) -> bool:
        """Whether every case has ended and the watcher knows it."""
        if ends(self.config.spool).not_ended:
            return False
        watcher, worker = scrape(self.watch_port), scrape(self.work_port)
        busy = value(worker, "ctdeface_worker_jobs_in_progress")
        return (
            not busy
            and not value(watcher, "ctdeface_watcher_open_jobs")
            and not value(watcher, "ctdeface_watcher_pending_cases")
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Watcher and worker over an empty spool."""
    folder = tmp_path_factory.mktemp("metrics")
    file = folder / "ctdeface.toml"
    tables = [
        "[output]\nmin_free_gb = 0",
        f"[work]\nmax_attempts = {ATTEMPTS}",
        "[broker]\nretry_delays = [0.3]",
    ]
    tables += [
        "[watch]\nquiet_period = 0.3\nrescan_interval = 0.5",
        f'[spool]\nroot = "{folder / "spool"}"',
    ]
    file.write_text("\n".join(tables), encoding="utf-8")
    service_config, watch_port, work_port = find_service(file), free_port(), free_port()
    service_config.prepare()
    environment = {**os.environ, "CTDEFACE_METRICS__WORK_PORT": str(work_port)}
    watcher: list[str | Path] = [
        Path(sys.executable).with_name("ctdeface"),
        "watch",
        "--config",
        file,
        "--metrics-port",
        str(watch_port),
    ]
    worker: list[str | Path] = [
        sys.executable,
        "-m",
        "tests.support.service.stand_in_worker",
        "--config",
        file,
        "--processes",
        "2",
    ]
    with (folder / "log").open("ab") as log:
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
            for command in (watcher, worker)
        ]
    yield Service(config=service_config, watch_port=watch_port, work_port=work_port)
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(20)


@pytest.fixture(scope="module")
def worked(service: Service) -> Service:
    """The service after a few cases of every kind."""
    service.until(
        lambda: all(
            get(port, "/readyz")[0] == 200 for port in (service.watch_port, service.work_port)
        )
    )
    for name, plan in PLANS.items():
        drop(service.config.spool, f"{MARK}^{name}", plan)
    service.until(service.is_over)
    return service


def test_both_are_ready_once_queue_disk_inbox_and_model_are_seen(worked: Service) -> None:
    """With nothing to complain about."""
    for port in (worked.watch_port, worked.work_port):
        assert get(port, "/readyz") == (200, '{"ready": true, "problems": {}}\n')
        assert get(port, "/healthz")[0] == 200


def test_the_worker_counts_what_lies_in_outbox_and_quarantine(worked: Service) -> None:
    """Released, refused by code, attempts and their failures, as folders and reports say."""
    spool, series = worked.config.spool, scrape(worked.work_port)
    outcomes = by_label(series, "ctdeface_worker_jobs_total")
    found = ends(spool)
    assert (
        (outcomes["released"], outcomes["refused"])
        == (len(found.outbox), len(found.quarantine))
        == (3, 4)
    )
    refused = [report for name in found.quarantine for report in reports(spool, name)]
    assert by_label(series, "ctdeface_worker_refusals_total") == Counter(
        report.result.code for report in refused
    )
    failures = by_label(series, "ctdeface_worker_attempt_failures_total")
    assert failures == {"WorkerCrashed": 1 + ATTEMPTS, "UnexpectedError": ATTEMPTS}
    everything = [
        report for name in (*found.outbox, *found.quarantine) for report in reports(spool, name)
    ]
    begun = sum(
        attempt_log.read(spool.reports / report.case / report.job_id).count for report in everything
    )
    assert (
        value(series, "ctdeface_worker_attempts_total")
        == begun
        == len(PLANS) + 1 + 2 * (ATTEMPTS - 1)
    )
    assert outcomes["retried"] == 1 + 2 * (ATTEMPTS - 1)
    assert value(series, "ctdeface_worker_input_bytes_total") == sum(
        report.manifest.bytes for report in everything
    )
    assert value(series, "ctdeface_worker_job_seconds_count") == len(PLANS)
    assert time.time() - value(series, "ctdeface_worker_last_release_timestamp_seconds") < 120


def test_the_worker_tells_of_its_children_and_its_model(worked: Service) -> None:
    """At least one restart after three crashes in two slots, and the memory of each slot."""
    series = scrape(worked.work_port)
    assert 1 <= value(series, "ctdeface_worker_child_restarts_total") <= 3
    peaks = by_label(series, "ctdeface_worker_child_peak_memory_bytes")
    assert set(peaks) == {"slot-0", "slot-1"}
    assert all(peak > 10e6 for peak in peaks.values())
    (model,) = [dict(labels) for name, labels in series if name == "ctdeface_worker_model_info"]
    assert model["segmenter"] == "geometric"
    assert len(model["digest"]) == 64


def test_the_watcher_counts_what_was_dropped_and_published(worked: Service) -> None:
    """Each case once; nothing open, nothing pending, an empty queue."""
    series = scrape(worked.watch_port)
    assert value(series, "ctdeface_watcher_drops_total") == len(PLANS)
    assert by_label(series, "ctdeface_watcher_cases_total") == {"published": len(PLANS)}
    assert value(series, "ctdeface_watcher_settle_seconds_count") == len(PLANS)
    assert value(series, "ctdeface_watcher_settle_seconds_sum") >= 0.3 * len(PLANS)
    assert value(series, "ctdeface_watcher_oldest_open_job_age_seconds") == 0
    assert time.time() - value(series, "ctdeface_watcher_last_look_timestamp_seconds") < 60
    assert value(series, "ctdeface_queue_up") == 1
    worked.until(lambda: by_label(scrape(worked.watch_port), "ctdeface_queue_messages") == {})


def test_a_job_that_is_delivered_again_and_one_that_leads_out_of_the_inbox_are_told_apart_from_work(
    worked: Service,
) -> None:
    """Repeated and buried; released and refused stay as they are, and no series is new."""
    before, spool = scrape(worked.work_port), worked.config.spool
    (done,) = reports(spool, f"{MARK}^a")
    submitted_at = datetime.fromisoformat(done.created_at)
    again = DefaceJob(
        job_id=done.job_id,
        case=done.case,
        manifest=done.manifest,
        submitted_at=submitted_at,
        options=DefaceOptions(),
        taken=done.taken,
    )
    outside = json.loads(encode_job(again)) | {"case": "../outbox"}
    put_raw(worked.config.queue, encode_job(again), json.dumps(outside).encode())
    worked.until(
        lambda: (
            {"repeated", "buried"}
            <= by_label(scrape(worked.work_port), "ctdeface_worker_jobs_total").keys()
        )
    )
    after = scrape(worked.work_port)
    for outcome in ("released", "refused"):
        assert value(after, "ctdeface_worker_jobs_total", outcome=outcome) == value(
            before, "ctdeface_worker_jobs_total", outcome=outcome
        )
    assert after.keys() == before.keys()


def test_no_name_and_no_job_appears_in_any_page(worked: Service) -> None:
    """Neither of a patient nor of a file, a folder or a job."""
    spool = worked.config.spool
    jobs = {
        report.job_id
        for case in (*ends(spool).outbox, *ends(spool).quarantine)
        for report in reports(spool, case)
    }
    assert len(jobs) == len(PLANS)
    for port in (worked.watch_port, worked.work_port):
        for page in ("/metrics", "/readyz", "/healthz"):
            text = get(port, page)[1]
            assert text
            assert not [
                mark
                for mark in (
                    MARK,
                    "plan.txt",
                    ".dcm",
                    str(worked.config.spool.inbox.parent),
                    *jobs,
                )
                if mark in text
            ]


def test_a_worker_whose_port_is_taken_does_not_start(worked: Service) -> None:
    """Exit 78, and a sentence that says what to do."""
    command: list[str | Path] = [
        Path(sys.executable).with_name("ctdeface"),
        "work",
        "--spool",
        worked.config.spool.inbox.parent,
    ]
    done = subprocess.run(
        [*command, "--metrics-port", str(worked.work_port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert (
        f"port {worked.work_port} at {HOST} is taken: choose a free one with --metrics-port"
        in done.stderr
    )
