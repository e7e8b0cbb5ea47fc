"""Dashboards and alerts of the processes of deploy/compose.yaml, without containers.

RabbitMQ with the shipped settings and users, `setup`, a watcher and two workers with the commands
and settings of the file, and Prometheus with the shipped rules. Hosts, ports and folders are this
machine's; the workers' pipeline is a stand-in that makes its figures up. Alerts wait for a second
where the shipped rules wait for minutes; their expressions are the shipped ones.
"""

import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ctdeface_shared.broker.rabbitmq import RabbitBroker
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.broker.topology import DEAD
from ctdeface_shared.storage.spool import ServiceSpool
from tests.integration.prometheus_server import Prometheus, running_prometheus
from tests.integration.rabbitmq_node import RabbitNode, running_node
from tests.integration.small_disk import fill_up, small_disk
from tests.support.service.composed import Places, command_of, make_secrets, rabbitmq_settings
from tests.support.service.scrapes import free_port, get, scrape, value
from tests.support.service.spools import drop, ends, job_for

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
PLANS = {f"case {number:02}": "short" for number in range(10)} | {
    "case 10": "refuse",
    "case 11": "once crash",
}
DISK_MEGABYTES = 64
RETRY_SECONDS = 6.0
QUICK = {
    "CTDEFACE_WATCH__QUIET_PERIOD": "0.3",
    "CTDEFACE_WATCH__RESCAN_INTERVAL": "0.5",
    "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.02",
    "CTDEFACE_WORK__MAX_ATTEMPTS": "2",
    "CTDEFACE_WORK__GRACE_PERIOD": "0",
    "CTDEFACE_BROKER__RETRY_DELAYS": f"[{RETRY_SECONDS}]",
}
WINDOW_SECONDS = 300
RELEASED = 'sum(max_over_time(ctdeface_worker_jobs_total{outcome="released"}[1h]))'


@dataclass(slots=True, kw_only=True)
class Service:
    """Watcher and workers as processes.

    Attributes:
        spool: on a small disk of its own.
        rabbitmq: the queue.
        prometheus: scrapes them.
        ports: of the watcher and of each worker.
        places: where things are.
    """

    spool: ServiceSpool
    rabbitmq: RabbitNode
    prometheus: Prometheus
    ports: Mapping[str, int]
    places: Places
    _processes: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start processes: `watcher`, `worker 1`, `worker 2`."""
        for name in names:
            service = name.partition(" ")[0]
            port = {
                f"CTDEFACE_METRICS__{one}_PORT": str(self.ports[name]) for one in ("WATCH", "WORK")
            }
            environment = {**self.places.environment_of(service), **QUICK, **port}
            with (self.places.state / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    command_of(service), cwd=ROOT, env=environment, stderr=log
                )

    def set_up(self) -> None:
        """Declare the queues, as the service `setup` does before the others begin."""
        environment = {**self.places.environment_of("setup"), **QUICK}
        subprocess.run(
            command_of("setup"), env=environment, check=True, capture_output=True, timeout=60
        )

    def stop(self, *names: str) -> None:
        """Ask processes to end, and wait until they have."""
        for name in names:
            self._processes[name].terminate()
        for name in names:
            assert self._processes.pop(name).wait(20) == 0

    def stop_all(self) -> None:
        """Kill whatever still runs."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def is_ready(self) -> bool:
        """Whether all say so."""
        return all(get(port, "/readyz")[0] == 200 for port in self.ports.values())

    def is_over(self) -> bool:
        """Whether every case has ended and the watcher knows it."""
        return (
            not ends(self.spool).not_ended
            and value(scrape(self.ports["watcher"]), "ctdeface_watcher_open_jobs") == 0
        )

    def is_scraped(self) -> bool:
        """Whether Prometheus has seen every release: what a worker counts is gone with it."""
        return self.prometheus.figures(RELEASED, 0) == [len(ends(self.spool).outbox)]


def wait_for(service: Service, what: str) -> None:
    """Wait until a property of the service holds."""
    deadline = time.monotonic() + 120
    while not getattr(service, what)():
        assert time.monotonic() < deadline, (what, ends(service.spool))
        time.sleep(0.1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All processes, after twelve cases."""
    folder = tmp_path_factory.mktemp("monitoring")
    with ExitStack() as stack:
        places = Places(
            spool=folder / "disk/spool",
            state=folder / "state",
            secrets=folder / "secrets",
            queue_port=0,
        )
        places.state.mkdir()
        make_secrets(places.secrets)
        stack.enter_context(small_disk(folder / "disk", DISK_MEGABYTES))
        ports = {name: free_port() for name in ("watcher", "worker 1", "worker 2")}
        targets = {
            "ctdeface-watcher": [ports["watcher"]],
            "ctdeface-worker": [ports["worker 1"], ports["worker 2"]],
        }
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus", targets))
        rabbitmq = stack.enter_context(
            running_node(folder / "rabbitmq", *rabbitmq_settings(places.secrets))
        )
        places = replace(places, queue_port=rabbitmq.port)
        spool = ServiceSpool.under(places.spool)
        made = Service(
            spool=spool, rabbitmq=rabbitmq, prometheus=prometheus, ports=ports, places=places
        )
        stack.callback(made.stop_all)
        made.set_up()
        made.start(*ports)
        wait_for(made, "is_ready")
        for name, plan in PLANS.items():
            drop(made.spool, name, plan)
        wait_for(made, "is_over")
        wait_for(made, "is_scraped")
        yield made


def test_all_cases_have_ended_and_only_the_small_disk_is_complained_about(service: Service) -> None:
    """Eleven cases are released, one is refused; the disk warning uses free bytes only."""
    found = ends(service.spool)
    assert (len(found.outbox), found.quarantine) == (11, ["case 10"])
    service.prometheus.until(
        lambda firing: firing - {"CtdefaceDiskFullTomorrow"} == {"CtdefaceDiskLow"}
    )


def test_stopped_workers_are_told_and_the_alerts_clear_when_they_are_back(service: Service) -> None:
    """One: a worker is down. Both, and a case waits: no worker."""
    service.stop("worker 2")
    service.prometheus.until(lambda firing: "CtdefaceWorkerDown" in firing)
    assert "CtdefaceNoWorker" not in service.prometheus.firing()
    service.stop("worker 1")
    drop(service.spool, "waits for a worker")
    service.prometheus.until(lambda firing: firing >= {"CtdefaceWorkerDown", "CtdefaceNoWorker"})
    service.start("worker 1", "worker 2")
    service.prometheus.until(lambda firing: not firing & {"CtdefaceWorkerDown", "CtdefaceNoWorker"})
    wait_for(service, "is_over")


def test_a_full_disk_is_told_and_the_alert_clears_with_space(service: Service) -> None:
    """The guard keeps the case in the inbox; it goes on by itself."""
    filler = fill_up(service.spool.inbox.parent, leave_bytes=8_000_000)
    drop(service.spool, "waits for space")
    service.prometheus.until(lambda firing: "CtdefaceDiskGuard" in firing)
    assert ends(service.spool).inbox == ["waits for space"]
    filler.unlink()
    service.prometheus.until(lambda firing: "CtdefaceDiskGuard" not in firing)
    wait_for(service, "is_over")


def test_poison_is_told_while_it_is_tried_and_when_it_is_given_up(service: Service) -> None:
    """A case kills its worker, a message names another case's files; the alerts show this."""
    spool, passing = service.spool, {"CtdefaceCasesRetried", "CtdefaceDeadLetters"}
    drop(spool, "poison", "crash")
    drop(spool, "other")
    password = (service.places.secrets / "watcher-password").read_text(encoding="utf-8")
    url = f"amqp://127.0.0.1:{service.rabbitmq.port}"
    broker = RabbitBroker(
        BrokerTarget(
            url=url, user="ctdeface-watcher", password=password, retry_delays=(RETRY_SECONDS,)
        )
    )
    broker.publish(replace(job_for(spool, "other"), job_id=str(uuid.uuid4()), case="link"))
    broker.close()
    service.prometheus.until(lambda firing: firing >= passing)
    service.rabbitmq.control("purge_queue", DEAD)
    service.prometheus.until(
        lambda firing: "CtdefaceCaseGivenUp" in firing and not firing & passing
    )
    assert ends(spool).quarantine == ["case 10", "poison"]


def test_a_stopped_watcher_is_told_and_the_alert_clears_when_it_is_back(service: Service) -> None:
    """Nothing would be queued without it."""
    service.stop("watcher")
    service.prometheus.until(lambda firing: "CtdefaceWatcherDown" in firing)
    service.start("watcher")
    service.prometheus.until(lambda firing: "CtdefaceWatcherDown" not in firing)


def queries() -> Sequence[tuple[str, str, str]]:
    """Return dashboard, panel and expression of every query."""
    boards = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in DASHBOARDS}
    return [
        (name, panel["title"], target["expr"])
        for name, board in boards.items()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.mark.parametrize(("dashboard", "panel", "expression"), queries())
def test_every_query_of_the_dashboards_has_data(
    service: Service, dashboard: str, panel: str, expression: str
) -> None:
    """Run by Prometheus itself, with Grafana's variables filled in."""
    asked = expression.replace("$__rate_interval", "30s").replace("$__range", f"{WINDOW_SECONDS}s")
    assert "$" not in asked
    figures = service.prometheus.figures(asked, WINDOW_SECONDS)
    assert figures, (dashboard, panel)


def test_recorded_figures_agree_with_the_outbox(service: Service) -> None:
    """One model and one version; releases equal the outbox, even over restarts."""
    prometheus = service.prometheus
    assert (
        prometheus.figures("ctdeface:models:count", 5)[-1]
        == prometheus.figures("ctdeface:versions:count", 5)[-1]
        == 1
    )
    (total,) = prometheus.figures(RELEASED, 0)
    assert 0 < total <= len(ends(service.spool).outbox)


def test_no_label_in_prometheus_is_a_case(service: Service) -> None:
    """Neither its name nor a job."""
    shown = json.dumps(service.prometheus.ask("series", **{"match[]": '{__name__=~".+"}'}))
    assert "case 0" not in shown
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-", shown)
