"""Metrics, liveness and readiness over HTTP, and requests that cannot do harm."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.metrics.dependencies import Dependencies, new_registry
from ctdeface_shared.metrics.endpoint import Address, serve, serve_metrics
from ctdeface_shared.metrics.probe import Probe
from ctdeface_shared.settings.sections import OFF
from ctdeface_shared.settings.service import ServiceConfig, find_service
from tests.integration.rabbitmq_node import RabbitNode
from tests.support.service.scrapes import HOST, free_port, get
from tests.support.service.spools import drop, job_for

FREE = Address(host=HOST, port=0)


class Faulty:
    """A collector with a bug."""

    def __init__(self) -> None:
        """Sound as long as it is being registered."""
        self.broken = False

    def collect(self) -> Iterator[object]:
        """Fail."""
        if self.broken:
            raise KeyError
        return iter(())


def nothing() -> Mapping[str, str]:
    """Say that nothing is wrong."""
    return {}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceConfig:
    """A service with its folders and an embedded queue."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "0")
    made = find_service(None, tmp_path / "spool")
    made.prepare()
    return made


def test_metrics_come_in_the_format_that_prometheus_reads_with_process_and_build() -> None:
    """The library's own parser reads the page."""
    with serve(FREE, new_registry(), nothing) as port:
        status, text = get(port, "/metrics")
    assert status == 200
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"ctdeface_build_info", "process_resident_memory_bytes", "process_open_fds"} <= families


def test_a_service_is_ready_when_nothing_is_wrong_and_says_what_is() -> None:
    """200 and 503, both as JSON; alive either way."""
    problems: dict[str, str] = {}
    with serve(FREE, CollectorRegistry(), lambda: problems) as port:
        assert get(port, "/readyz") == (200, '{"ready": true, "problems": {}}\n')
        problems["queue"] = "the queue cannot be reached"
        status, text = get(port, "/readyz")
        assert (status, json.loads(text)) == (503, {"ready": False, "problems": problems})
        assert get(port, "/healthz")[0] == 200


def test_warnings_leave_a_service_ready() -> None:
    """A load balancer or Kubernetes must not take away a service over one damaged case."""
    probe = Probe(
        {"good": lambda: None}, warnings={"skipped": lambda: "1 case"}, period_seconds=0.05
    )
    with serve(FREE, CollectorRegistry(), probe.problems, warnings=probe.warnings) as port, probe:
        wait_for(lambda: bool(probe.warnings()) and not probe.problems())
        status, text = get(port, "/readyz")
    assert (status, json.loads(text)) == (
        200,
        {"ready": True, "problems": {}, "warnings": {"skipped": "1 case"}},
    )


def test_other_pages_and_methods_are_refused() -> None:
    """Nothing but these three pages, and only to be read."""
    with serve(FREE, CollectorRegistry(), nothing) as port:
        assert get(port, "/")[0] == 404
        assert get(port, "/metrics/../readyz")[0] == 404
        assert get(port, "/metrics", "POST")[0] == 405


def test_a_faulty_collector_costs_its_request_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """500 without a traceback on the terminal; the next page is served."""
    registry, faulty = CollectorRegistry(), Faulty()
    registry.register(faulty)  # type: ignore[arg-type]  # it only has to fail
    faulty.broken = True
    with serve(FREE, registry, nothing) as port:
        assert get(port, "/metrics")[0] == 500
        assert get(port, "/healthz")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_clients_that_say_nothing_or_hang_up_hold_up_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Ten open connections and one that breaks off."""
    with serve(FREE, new_registry(), nothing) as port:
        silent = [socket.create_connection((HOST, port)) for _ in range(10)]
        rude = socket.create_connection((HOST, port))
        rude.sendall(b"GET /metrics HTTP/1.1\r\n")
        rude.close()
        assert get(port, "/healthz")[0] == 200
        for each in silent:
            each.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    """And an address of another machine as well."""
    with (
        serve(FREE, CollectorRegistry(), nothing) as port,
        pytest.raises(
            ConfigurationError,
            match=rf"port {port} at {HOST} is taken: choose a free one with --metrics-port",
        ),
        serve(Address(host=HOST, port=port), CollectorRegistry(), nothing),
    ):
        pytest.fail("two servers at one port")
    with (
        pytest.raises(ConfigurationError, match=r"correct metrics\.host"),
        serve(Address(host="192.0.2.1", port=0), CollectorRegistry(), nothing),
    ):
        pytest.fail("served at an address of the documentation")


def test_port_0_serves_nothing_and_looks_at_nothing() -> None:
    """Turned off means that no thread is started."""
    before = threading.active_count()
    with serve_metrics(Address(host=HOST, port=OFF), CollectorRegistry(), Probe({})):
        assert threading.active_count() == before


def wait_until_ready(probe: Probe, *, ready: bool) -> dict[str, str]:
    """Wait until the probe says so, and return what it says."""
    wait_for(lambda: bool(probe.problems()) != ready)
    return probe.problems()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.02)
    assert condition()


def test_the_surroundings_are_looked_at_again_and_again(service: ServiceConfig) -> None:
    """Not ready without the inbox, ready when it is back; the queue's messages are counted."""
    registry = new_registry()
    surroundings = Dependencies(service, registry, counts_messages=True)
    probe = Probe(surroundings.checks(), close=surroundings.close, period_seconds=0.05)
    assert probe.problems().keys() == {
        "disk",
        "inbox",
        "queue",
    }  # nothing is ready before it was looked at
    with probe:
        wait_until_ready(probe, ready=True)
        assert registry.get_sample_value("ctdeface_queue_up") == 1
        assert registry.get_sample_value("ctdeface_queue_messages", {"state": "ready"}) == 0
        drop(service.spool, "a")
        open_broker(service.queue).publish(job_for(service.spool, "a"))
        wait_for(
            lambda: registry.get_sample_value("ctdeface_queue_messages", {"state": "ready"}) == 1
        )
        assert (
            registry.get_sample_value("ctdeface_disk_free_bytes", {"place": "outbox"}) or 0
        ) > 1e6
        service.spool.inbox.rename(service.spool.inbox.with_name("gone"))
        assert wait_until_ready(probe, ready=False) == {
            "inbox": "the inbox cannot be read: No such file or directory"
        }
        service.spool.inbox.mkdir()
        wait_until_ready(probe, ready=True)


def test_rabbitmq_is_counted_and_its_absence_told(
    service: ServiceConfig, clean_rabbitmq: RabbitNode
) -> None:
    """Messages are counted while the queue is reachable; otherwise the reason is shown."""

    def looked(url: str) -> tuple[str | None, float | None, float | None]:
        registry = new_registry()
        surroundings = Dependencies(
            replace(service, queue=BrokerTarget(url=url)), registry, counts_messages=True
        )
        problem = surroundings.queue()
        surroundings.close()
        return (
            problem,
            registry.get_sample_value("ctdeface_queue_up"),
            registry.get_sample_value("ctdeface_queue_messages", {"state": "ready"}),
        )

    assert looked(clean_rabbitmq.url) == (None, 1, 0)
    assert looked(f"amqp://127.0.0.1:{free_port()}") == ("the queue cannot be reached", 0, None)
    problem, up, ready = looked(
        clean_rabbitmq.url.replace("amqp://", "amqp://nobody:wrong@").replace("@guest:guest@", "@")
    )
    assert problem is not None
    assert problem.startswith("the queue refuses the login")
    assert (up, ready) == (0, None)


def test_a_check_that_hangs_is_told_and_delays_no_answer() -> None:
    """A dead network share blocks each process that accesses it."""
    never = threading.Event()

    def hang() -> str | None:
        never.wait(20)
        return None

    with Probe({"inbox": hang}, period_seconds=0.05, stale_seconds=0.2) as probe:
        threading.Event().wait(0.4)
        assert probe.problems() == {"inbox": "no answer for more than 0.2 seconds"}
        never.set()


def test_a_check_with_a_bug_is_told_and_the_others_go_on() -> None:
    """The thread outlives it."""
    looked = threading.Event()

    def bug() -> str | None:
        raise KeyError

    def good() -> str | None:
        looked.set()
        return None

    with Probe({"bug": bug, "good": good}, period_seconds=0.05) as probe:
        assert looked.wait(5)
        threading.Event().wait(0.05)
        assert probe.problems() == {"bug": "the check itself failed"}
