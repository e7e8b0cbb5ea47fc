"""Watcher and worker processes export one trace per case to a collector."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.settlement import Ack, Requeue, Retry
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.settings.service import find_service
from tests.integration.test_brokers import Opened, job, received, target_of
from tests.support.service.collector import Collector, Received, collecting
from tests.support.service.local_service import (
    DELAY_SECONDS,
    ROOT,
    LocalService,
    configured_service,
)
from tests.support.service.spools import Ends, drop, ends, job_for

CTDEFACE = Path(sys.executable).with_name("ctdeface")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MARK = "DOE^JANE"
PLANS = {f"{MARK} 1": "release", f"{MARK} 2": "refuse", f"{MARK} 3": "once crash"}


@pytest.fixture(params=["sqlite", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Both queues."""
    return None if request.param == "sqlite" else request.getfixturevalue("clean_rabbitmq").url


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where traces arrive."""
    with collecting() as made:
        yield made


@pytest.fixture
def local_service(tmp_path: Path, url: str | None, collector: Collector) -> Iterator[LocalService]:
    """A service that tells the collector."""
    tables: dict[str, dict[str, object]] = {
        "metrics": {"watch_port": 0, "work_port": 0},
        "traces": {"endpoint": collector.endpoint},
        "watch": {"quiet_period": 0.3, "rescan_interval": 0.5},
        "work": {"job_timeout": 20, "max_attempts": 2, "grace_period": 20},
    }
    service = configured_service(tmp_path, url, **tables)
    service.prepare()
    made = LocalService(folder=tmp_path, service=service)
    yield made
    made.stop()


def end(*processes: "subprocess.Popen[bytes]") -> list[int]:
    """Ask processes to end and return their exit codes."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    return [process.wait(timeout=60) for process in processes]


@contextmanager
def watching(local_service: LocalService) -> Iterator["subprocess.Popen[bytes]"]:
    """Watch as users do for the time of the block."""
    with (local_service.folder / "watcher.log").open("ab") as log:
        watcher = subprocess.Popen(
            [CTDEFACE, "watch", "--config", local_service.folder / "ctdeface.toml"],
            cwd=ROOT,
            stderr=log,
        )
    try:
        yield watcher
    finally:
        watcher.kill()
        watcher.wait()


def inside(span: Received, outer: Received) -> bool:
    """Return whether a span is part of another one, also in time."""
    return (
        span.parent == outer.span
        and outer.begun - 1e6 <= span.begun <= span.ended <= outer.ended + 1e6
    )


def test_watcher_and_worker_tell_one_trace_of_each_case(
    local_service: LocalService, collector: Collector
) -> None:
    """Every stage is a span of its job, failures show where, and no patient is named."""
    for name, plan in PLANS.items():
        drop(local_service.spool, name, plan)
    with watching(local_service) as watcher:
        worker = local_service.start()
        done = Ends(inbox=[], outbox=[f"{MARK} 1", f"{MARK} 3"], quarantine=[f"{MARK} 2"])
        local_service.until(lambda: ends(local_service.spool) == done and local_service.is_idle())
        assert end(watcher, worker) == [0, 0]

    spans = collector.spans()
    roots = [span for span in spans if span.name == "watch"]
    assert {(span.service, span.parent) for span in roots} == {("ctdeface-watcher", "")}
    assert len({span.trace for span in roots}) == len(PLANS)
    found_spans = {}
    for root in roots:
        jobs = [span for span in spans if span.name == "job" and span.trace == root.trace]
        assert {(span.service, span.parent, span.about["job_id"]) for span in jobs} == {
            ("ctdeface-worker", root.span, root.about["job_id"])
        }
        assert all(span.begun >= root.begun for span in jobs)
        assert {
            span.name for span in spans if inside(span, root) and span.service == root.service
        } == {"settle", "publish"}
        outcomes = [
            (str(span.about["outcome"]), span.failed, stages(spans, span))
            for span in sorted(jobs, key=lambda one: one.begun)
        ]
        found_spans[tuple(outcome for outcome, _, _ in outcomes)] = [rest for _, *rest in outcomes]
    assert found_spans == {
        ("released",): [[False, {"segment": False, "publish": False, "settle": False}]],
        ("refused",): [[False, {"segment": False, "quarantine": False, "settle": False}]],
        ("retried", "released"): [
            [True, {"segment": True, "settle": False}],
            [False, {"segment": False, "publish": False, "settle": False}],
        ],
    }
    assert all(
        mark not in body
        for body in collector.bodies
        for mark in (MARK.encode(), b"DOE", str(local_service.folder).encode())
    )


def stages(spans: list[Received], outer: Received) -> dict[str, bool]:
    """The parts of a job, and whether each failed."""
    return {span.name: span.failed for span in spans if inside(span, outer)}


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A fresh queue of each kind."""
    opened = Opened(target_of(request.param, tmp_path, request))
    yield opened
    opened.close()


def test_the_trace_goes_with_the_message_through_every_retry(queue: Opened) -> None:
    """Not even a job that is handed back loses it; one that never had a trace gets none."""
    broker = queue()
    broker.publish(job("a"), PARENT)
    for settlement in (Retry(DELAY_SECONDS), Requeue(), Ack()):
        delivery = received(broker)
        assert delivery.traceparent == PARENT
        assert broker.settle(delivery, settlement)
    broker.publish(job("b"))
    assert received(broker).traceparent is None


def test_what_is_no_trace_is_not_handed_on(queue: Opened) -> None:
    """Somebody else may publish as well."""
    broker = queue()
    broker.publish(job("a"), MARK if queue.target else None)
    assert received(broker).traceparent is None


def test_a_queue_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its file has no place for traces; it gets one, and the jobs in it are delivered."""
    target = BrokerTarget(url=f"sqlite://{tmp_path}/queue.sqlite3")
    broker = open_broker(target)
    broker.publish(job("a"))
    broker.close()
    with sqlite3.connect(tmp_path / "queue.sqlite3") as database:
        database.execute("ALTER TABLE jobs DROP COLUMN trace")
    broker = open_broker(target)
    broker.publish(job("b"), PARENT)
    first = received(broker)
    assert (first.traceparent, broker.settle(first, Ack())) == (None, True)
    assert received(broker).traceparent == PARENT
    broker.close()


def test_a_collector_that_is_not_there_costs_nothing_but_its_spans(tmp_path: Path) -> None:
    """The case is released, and the process ends in time."""
    tables: dict[str, dict[str, object]] = {
        "metrics": {"watch_port": 0, "work_port": 0},
        "traces": {"endpoint": "http://127.0.0.1:9/v1/traces"},
    }
    local_service = LocalService(
        folder=tmp_path, service=configured_service(tmp_path, None, **tables)
    )
    local_service.service.prepare()
    drop(local_service.spool, "a")
    broker = open_broker(local_service.service.queue)
    broker.publish(job_for(local_service.spool, "a"), PARENT)
    broker.close()
    worker = local_service.start()
    local_service.until(
        lambda: ends(local_service.spool).outbox == ["a"] and local_service.is_idle()
    )
    assert end(worker) == [0]


def test_an_endpoint_without_the_libraries_says_what_to_install(tmp_path: Path) -> None:
    """In one line, before anything is taken."""
    block = (
        "import sys; sys.modules['opentelemetry'] = None; "
        "from ctdeface_shared.commands.main import main; sys.exit(main(sys.argv[1:]))"
    )
    variables = os.environ | {
        "CTDEFACE_TRACES__ENDPOINT": "http://127.0.0.1:9/v1/traces",
        "CTDEFACE_METRICS__WATCH_PORT": "0",
    }
    command = [sys.executable, "-c", block, "watch", "--spool", str(tmp_path / "spool")]
    ended = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 78
    assert "pip install 'ctdeface[traces]'" in ended.stderr


@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:4318",
        "http://user:secret@localhost/v1/traces",
        "ftp://localhost/v1/traces",
        "http://localhost",
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str, tmp_path: Path) -> None:
    """So is one with a password in it, which would be shown with the settings."""
    (tmp_path / "ctdeface.toml").write_text(
        f'[traces]\nendpoint = "{endpoint}"\n', encoding="utf-8"
    )
    with pytest.raises(ConfigurationError):
        find_service(tmp_path / "ctdeface.toml")
