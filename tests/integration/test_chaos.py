"""Processes are killed at random, and each case still has exactly one outcome.

The suite runs it small; `make chaos` sets CTDEFACE_TEST_CHAOS=full: 200 cases and 30 kills per
queue, and ten real heads.
"""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Depth
from ctdeface_shared.broker.target import BrokerTarget, url_of
from ctdeface_shared.errors import BrokerUnavailable
from ctdeface_shared.storage.spool import ServiceSpool
from tests.integration.rabbitmq_node import RabbitNode, running_node
from tests.support.cases import write_small_cases
from tests.support.service import chaos
from tests.support.service.spools import drop, reports
from tests.support.service.stand_in_pipeline import reversed_bytes
from tests.support.service.watcher import wait_for

FULL = os.environ.get("CTDEFACE_TEST_CHAOS") == "full"
CASES, KILLS = (200, 30) if FULL else (20, 6)
REAL_KILLS = 12 if FULL else 2
SEED = int(os.environ.get("CTDEFACE_TEST_SEED", "20261121"))
DELAYS = (0.5, 1.0)
HEADS = (
    "visible_human_female",
    "stanford_cthead",
    "vtk_headsq",
    "dcm_qa_ct_ge",
    "dcm_qa_ct_philips",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue and how its server is killed.

    Attributes:
        url: where it is; None for the embedded one.
        restart: kills the server and starts it again; None where there is none.
    """

    url: str | None
    restart: Callable[[], None] | None


@pytest.fixture(params=["sqlite", "rabbitmq"])
def queue(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Queue]:
    """Both queues; the server is one of its own, because it is killed."""
    if request.param == "sqlite":
        yield Queue(url=None, restart=None)
        return
    with running_node(tmp_path_factory.mktemp("chaos-node")) as node:
        prepare_server(node)
        yield Queue(url=node.url, restart=node.restart)


def prepare_server(node: RabbitNode) -> None:
    """Declare the queues before anything is killed, as `ctdeface broker init` does."""
    broker = open_broker(BrokerTarget(url=node.url, retry_delays=DELAYS))
    broker.depth()
    broker.close()
    time.sleep(2)


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path / "spool")
    made.prepare(outbox_mode=0o750)
    made.inbox.mkdir()
    return made


def environment(queue: Queue) -> dict[str, str]:
    """Settings that make everything quick."""
    settings = {
        "WATCH__QUIET_PERIOD": "0.4",
        "WATCH__RESCAN_INTERVAL": "1",
        "OUTPUT__MIN_FREE_GB": "0.1",
        "WORK__MAX_ATTEMPTS": "50",
        "WORK__GRACE_PERIOD": "30",
        "METRICS__WATCH_PORT": "0",
        "METRICS__WORK_PORT": "0",
        "BROKER__LEASE": "4",
        "BROKER__HEARTBEAT": "4",
        "BROKER__RETRY_DELAYS": str(list(DELAYS)),
    } | ({"BROKER__URL": queue.url} if queue.url else {})
    return {**os.environ, **{f"CTDEFACE_{name}": value for name, value in settings.items()}}


def members(
    spool: ServiceSpool, queue: Queue, worker: Callable[[Path], tuple[str, ...]], workers: int
) -> list[chaos.ServiceProcess]:
    """One watcher and the workers."""
    root = spool.inbox.parent
    commands = {"watcher": chaos.watcher(root)} | {
        f"worker-{number}": worker(root) for number in range(1, workers + 1)
    }
    variables = environment(queue)
    return [
        chaos.ServiceProcess(name, command, root.parent / f"{name}.log", variables)
        for name, command in commands.items()
    ]


def is_over(spool: ServiceSpool, queue: Queue, cases: int) -> bool:
    """Return True if every case has an outcome and no job remains."""
    ended = len(chaos.names(spool.outbox)) + len(chaos.names(spool.quarantine))
    if chaos.names(spool.inbox) or chaos.names(spool.taken) or ended < cases:
        return False
    try:
        depth = depth_of(spool, queue)
    except BrokerUnavailable:
        return False
    return not (depth.ready or depth.held or depth.delayed)


def depth_of(spool: ServiceSpool, queue: Queue) -> Depth:
    """Count what lies in the queue."""
    broker = open_broker(
        BrokerTarget(
            url=queue.url or url_of(spool.inbox.parent / "state" / "queue.sqlite3"),
            retry_delays=DELAYS,
        )
    )
    depth = broker.depth()
    broker.close()
    return depth


def assert_nothing_is_left(spool: ServiceSpool, queue: Queue) -> None:
    """No job, no lock, no staged file and no second output is left over."""
    assert chaos.leftovers(spool) == []
    assert chaos.names(spool.archive / "outputs") == set()  # nothing was published over
    depth = depth_of(spool, queue)
    assert (depth.ready, depth.delayed, depth.dead) == (0, 0, 0)


def logs(of: Sequence[chaos.ServiceProcess]) -> str:
    """The last that each process said, for a failure."""
    return "\n".join(
        f"--- {member.name}\n{member.log.read_text()[-2000:]}"
        for member in of
        if member.log.exists()
    )


@pytest.mark.timeout(1200)
def test_every_case_comes_to_exactly_one_end_whatever_is_killed(
    spool: ServiceSpool, queue: Queue, tmp_path: Path
) -> None:
    """Watcher, workers and server die at random; no case is lost, repeated or partial."""
    chance = random.Random(SEED)
    plans = {
        f"case-{number:03d}": chance.choice(["short", "release", "release", "refuse"])
        for number in range(CASES)
    }
    prepared = ServiceSpool.under(tmp_path / "prepared")
    inputs = {
        case: chaos.contents(drop(prepared, case, plan, files=3)) for case, plan in plans.items()
    }
    expected = {
        case: {name: reversed_bytes(content) for name, content in inputs[case].items()}
        for case, plan in plans.items()
        if plan != "refuse"
    }
    monitor = chaos.OutboxMonitor(spool.outbox, lambda case, files: expected.get(case) == files)
    processes = members(spool, queue, chaos.stand_in_worker, workers=3)
    plan = chaos.Plan(
        drops=[partial((prepared.inbox / case).rename, spool.inbox / case) for case in plans],
        kills=KILLS,
        pause_seconds=(0.3, 2.0),
        settle_seconds=240,
        chance=chance,
    )
    print(f"seed {SEED}, {CASES} cases, at least {KILLS} kills")
    begun = time.monotonic()
    with monitor:
        killed = chaos.kill_at_random(
            plan, processes, queue.restart, partial(is_over, spool, queue, CASES)
        )
    print(
        f"{dict(killed)} killed in {time.monotonic() - begun:.0f} s,"
        f" {monitor.scans} scans of the outbox"
    )

    assert killed.total() >= KILLS
    assert monitor.wrong == [], logs(processes)
    assert chaos.names(spool.outbox) == expected.keys(), logs(processes)
    assert chaos.names(spool.quarantine) == plans.keys() - expected.keys()
    for case, files in inputs.items():
        assert len(reports(spool, case)) == 1
        kept = spool.archive / "originals" if case in expected else spool.quarantine
        places = list(kept.joinpath(case).rglob("plan.txt"))
        assert [chaos.contents(place.parent) for place in places] == [files]
    assert_nothing_is_left(spool, queue)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("queue", ["sqlite", "rabbitmq"] if FULL else ["sqlite"], indirect=True)
def test_the_real_pipeline_gives_the_same_files_whatever_is_killed(
    spool: ServiceSpool, queue: Queue, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What appears is byte for byte what an undisturbed run gives."""
    scans = tmp_path / "scans"
    if FULL:
        data: Path = request.getfixturevalue("real_data")
        for number in range(10):
            shutil.copytree(data / HEADS[number % 5], scans / f"head-{number}")
    else:
        write_small_cases(scans, 1)
    expected = undisturbed(scans, tmp_path / "undisturbed")
    cases = sorted(chaos.names(scans))
    monitor = chaos.OutboxMonitor(spool.outbox, lambda case, files: expected.get(case) == files)
    processes = members(spool, queue, chaos.real_worker, workers=2 if FULL else 1)
    plan = chaos.Plan(
        drops=[partial((scans / case).rename, spool.inbox / case) for case in cases],
        kills=REAL_KILLS,
        pause_seconds=(4.0, 25.0) if FULL else (2.0, 5.0),
        settle_seconds=1200,
        chance=random.Random(SEED),
    )
    with monitor:
        killed = chaos.kill_at_random(
            plan, processes, queue.restart, partial(is_over, spool, queue, len(cases))
        )
    print(f"seed {SEED}: {dict(killed)} killed, {monitor.scans} scans of the outbox")

    assert monitor.wrong == [], logs(processes)
    assert chaos.names(spool.outbox) == expected.keys(), logs(processes)
    assert chaos.names(spool.quarantine) == set(cases) - expected.keys()
    assert_nothing_is_left(spool, queue)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lookout_that_died_is_no_proof(tmp_path: Path) -> None:
    """It saw nothing wrong only because it saw nothing any more."""
    (tmp_path / "case").write_text("no folder", encoding="utf-8")

    def fails(_case: str, _files: chaos.Contents) -> bool:
        raise PermissionError

    with (
        pytest.raises(AssertionError, match="the monitor died"),
        chaos.OutboxMonitor(tmp_path, fails) as monitor,
    ):
        wait_for(lambda: monitor.scans > 0)


def undisturbed(scans: Path, out: Path) -> Mapping[str, chaos.Contents]:
    """What the batch command releases of the same cases."""
    subprocess.run(
        [chaos.COMMAND, "deface", "-i", scans, "-o", out],
        env=environment(Queue(url=None, restart=None)),
        check=False,
    )
    return {case: chaos.contents(out / case) for case in chaos.names(out)}
