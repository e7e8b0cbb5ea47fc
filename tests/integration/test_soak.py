"""A service that works without a pause holds no more after many cases than after a few.

The suite runs it for seconds; `make soak` sets CTDEFACE_TEST_SOAK_SECONDS to half an hour, prints
what it measured, and judges memory, which takes that long: three services at the same time, two
with the real pipeline on small synthetic heads, and one with the declared stand-in for the
pipeline, because many cases are wanted of it.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import median

import pytest

from ctdeface_shared.storage.spool import ServiceSpool
from tests.integration.rabbitmq_node import running_node
from tests.integration.test_chaos import prepare_server
from tests.support.cases import remove_a_slice, write_small_case
from tests.support.service.chaos import COMMAND, ServiceProcess, leftovers
from tests.support.service.processes import KIB_PER_MB, Line, at_rest, line_through, series_of
from tests.support.service.scrapes import free_port
from tests.support.service.soak import Service, copies, processes, settings, soak
from tests.support.service.spools import drop

SECONDS = float(os.environ.get("CTDEFACE_TEST_SOAK_SECONDS", "12"))
FULL = SECONDS >= 1800
SAMPLE_SECONDS = 2.0 if FULL else 0.5
BUCKET_SECONDS = SECONDS / 60
KEEP_SECONDS = 120.0 if FULL else 4.0
REAL_EVERY_SECONDS = 20.0 if FULL else 6.0
STAND_IN_EVERY_SECONDS = 0.75 if FULL else 0.25
SETTLE_SECONDS = 300.0
WAL_BYTES = 4_400_000
"""What SQLite writes beside a database before it begins the file anew."""
STATE_BYTES = 1200
"""Per case: a row of the ledger with its two indices, and an event."""
LOG_BYTES = 4000
"""Per case; half of the lines are stages."""
MARK = ".seen-"
"""How the stand-in's own notes begin."""
PARENT_KIB = 3000.0
"""Allowed growth of watcher, worker and supervisor in a quarter of an hour.

It is 4 KB for each of the 800 cases that the stand-in's service handles in that time, less than a
job's report. Python seldom collects garbage in a large process, so memory rises and falls.
"""
CHILD_SHARE = 0.05
"""Allowed relative growth of a child that holds whole volumes.

It is half a megabyte for each of its two dozen cases, a sixth of one case's files.
"""
MOST = {"files": 26, "threads": 14}
"""Limits of a process at any moment.

A worker with RabbitMQ, a case and its child has 18 files and 9 threads, plus those of scrapes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How the memory of a process grew over a number of cases.

    Attributes:
        line: through resident KiB at rest over seconds.
        first_kib: at the beginning.
        last_kib: at the end.
        cases: how many were dropped meanwhile.
        seconds: how long that was.
    """

    line: Line
    first_kib: float
    last_kib: float
    cases: float
    seconds: float

    @property
    def mb_per_1000_cases(self) -> float:
        """The slope, per case."""
        return self.line.per_second * self.seconds / self.cases * 1000 / KIB_PER_MB

    @property
    def grown_kib(self) -> float:
        """By how much the line rises in that time."""
        return self.line.per_second * self.seconds

    def __str__(self) -> str:
        """Say it in one line."""
        slope, error = self.line.per_second * 3600, self.line.error * 3600
        return (
            f"{self.first_kib:7.0f} -> {self.last_kib:7.0f} KiB, "
            f"slope {slope:+8.0f} ± {error:.0f} KiB/h, "
            f"{self.mb_per_1000_cases:+8.3f} MB/1000 cases"
        )


def empty_spool(folder: Path) -> ServiceSpool:
    """Make the folders of a service."""
    spool = ServiceSpool.under(folder / "spool")
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    return spool


def heads(folder: Path) -> Mapping[str, Path]:
    """Write a small head, and the same with a hole: of four cases one is refused."""
    for name in ("head", "hole"):
        write_small_case(folder / name)
    remove_a_slice(folder / "hole")
    return {"a": folder / "head", "b": folder / "head", "c": folder / "head", "d": folder / "hole"}


def plans(folder: Path) -> Mapping[str, Path]:
    """Write cases: of fifty, one kills its process, one meets a bug, two are refused."""
    there = ServiceSpool.under(folder)
    kinds = {3: "refuse", 11: "once crash", 23: "refuse", 37: "bug"}
    return {
        f"{number:02d}": drop(there, f"{number:02d}", kinds.get(number, "release"))
        for number in range(50)
    }


def consecutive_ports() -> tuple[int, int]:
    """Return two free ports, one after the other, as `up` gives them to its workers."""
    first = free_port()
    return first, first + 1


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Service]]:
    """All services, after the soak."""
    folder = tmp_path_factory.mktemp("soak")
    real = heads(folder / "heads")
    with ExitStack() as stack:
        made = {}
        for name, is_stand_in in (("rabbitmq, real pipeline", False), ("rabbitmq, stand-in", True)):
            node = stack.enter_context(running_node(folder / f"node {name}"))
            prepare_server(node)
            place = folder / name
            place.mkdir()
            spool = empty_spool(place)
            ports = {one: free_port() for one in ("watcher", "worker 1", "worker 2")}
            members = tuple(
                processes(spool.inbox.parent, ports, settings(node.url, KEEP_SECONDS), is_stand_in)
            )
            cases = plans(folder / "plans") if is_stand_in else real
            pause = STAND_IN_EVERY_SECONDS if is_stand_in else REAL_EVERY_SECONDS
            made[name] = Service(
                name=name,
                spool=spool,
                members=members,
                ports=ports,
                drops=copies(cases, spool),
                every_seconds=pause,
                is_stand_in=is_stand_in,
            )
        name = "embedded queue, real pipeline, up"
        made[name] = of_up(name, folder / "up", real)
        for service in made.values():
            for member in service.members:
                stack.callback(partial(_kill, member))
        soak(tuple(made.values()), SECONDS, SAMPLE_SECONDS, SETTLE_SECONDS)
        for service in made.values():
            pairs = zip(service.holdings, service.looks, strict=True)
            samples = [
                [at, {role: asdict(held) for role, held in holdings.items()}, asdict(look)]
                for (at, holdings), (_, look) in pairs
            ]
            (folder / f"{service.name}.json").write_text(json.dumps(samples), encoding="utf-8")
        yield made


def of_up(name: str, folder: Path, cases: Mapping[str, Path]) -> Service:
    """Describe a service of one command, with the embedded queue."""
    folder.mkdir()
    spool, watch_port, (first, second) = empty_spool(folder), free_port(), consecutive_ports()
    own = {
        "CTDEFACE_METRICS__WATCH_PORT": str(watch_port),
        "CTDEFACE_METRICS__WORK_PORT": str(first),
    }
    command = (
        str(COMMAND),
        "up",
        "--spool",
        str(spool.inbox.parent),
        "--workers",
        "2",
        "--threads",
        "1",
    )
    member = ServiceProcess(
        "up", command, folder / "up.log", {**settings(None, KEEP_SECONDS), **own}
    )
    ports = {"watcher": watch_port, "worker 1": first, "worker 2": second}
    return Service(
        name=name,
        spool=spool,
        members=(member,),
        ports=ports,
        drops=copies(cases, spool),
        every_seconds=REAL_EVERY_SECONDS,
    )


def _kill(member: ServiceProcess) -> None:
    if member.process is not None:
        member.process.kill()
        member.process.wait()


def lasting(service: Service) -> Sequence[str]:
    """Return the roles of processes that lived throughout; some cases kill children."""
    roles = service.holdings[len(service.holdings) // 2][1].keys() & service.holdings[-1][1].keys()
    return sorted(role for role in roles if not (service.is_stand_in and "child" in role))


def growth(service: Service, role: str) -> Growth:
    """Return by how much the memory of a process grew in the second half."""
    half = [one for one in service.holdings if one[0] >= SECONDS / 2]
    points = at_rest(series_of(half, role, attrgetter("rss_kib")), BUCKET_SECONDS)
    return Growth(
        line=line_through(points),
        first_kib=points[0][1],
        last_kib=points[-1][1],
        cases=service.dropped / 2,
        seconds=SECONDS / 2,
    )


def test_every_case_is_counted_once_where_it_ended(services: Mapping[str, Service]) -> None:
    """What the workers count is what lay in outbox and quarantine, and that is what was dropped."""
    for service in services.values():
        counted = service.counted
        print(
            f"{service.name}: {service.dropped} dropped, taken {dict(service.taken)}, "
            f"counted {dict(counted)}"
        )
        assert (counted["released"], counted["refused"]) == (
            service.taken["outbox"],
            service.taken["quarantine"],
        )
        assert sum(service.taken.values()) == service.dropped


def test_no_folder_is_left_over(services: Mapping[str, Service]) -> None:
    """All processes end as asked; staging, work and locks are empty then."""
    for service in services.values():
        assert not any(service.codes.values()), service.codes
        assert [path for path in leftovers(service.spool) if not path.name.startswith(MARK)] == []
        for folder in ("staging", "work"):
            assert max(look.folders[folder] for _, look in service.looks) <= 2


def test_what_is_kept_goes_after_its_time(services: Mapping[str, Service]) -> None:
    """Expired reports and originals are removed within a quarter of their time and a minute."""
    for service in services.values():
        kept = {
            folder: max(look.folders[folder] for _, look in service.looks)
            for folder in ("reports", "originals")
        }
        oldest = max(look.oldest_seconds for _, look in service.looks)
        print(f"{service.name}: at most {kept} kept, of {service.dropped}, for {oldest:.0f} s")
        assert oldest <= KEEP_SECONDS * 1.25 + 60


def test_the_state_folder_and_the_logs_grow_with_the_number_of_cases_only(
    services: Mapping[str, Service],
) -> None:
    """State grows by a ledger line per job, of which 10 000 are kept, and a few log lines."""
    for service in services.values():
        last = service.look()
        print(
            f"{service.name}: {dict(last.state_bytes)} bytes of state, "
            f"{last.log_bytes / service.dropped:.0f} bytes of log per case"
        )
        assert sum(last.state_bytes.values()) <= 2 * WAL_BYTES + STATE_BYTES * service.dropped
        assert last.log_bytes <= LOG_BYTES * service.dropped


def test_no_process_holds_more_and_more_files_or_threads(services: Mapping[str, Service]) -> None:
    """The last quarter holds no more than the one before, by median and by minimum."""
    # a worker holds more while it has a case and less without a child, and either may fall into one
    # quarter; what leaks raises both figures
    for service in services.values():
        for role in lasting(service):
            for name in ("files", "threads"):
                points = series_of(service.holdings, role, attrgetter(name))
                figures = [figure for _, figure in points[len(points) // 2 :]]
                third, last = figures[: len(figures) // 2], figures[len(figures) // 2 :]
                calm, common = (min(third), min(last)), (median(third), median(last))
                print(
                    f"{service.name}: {role:18} {calm[0]} to {common[0]:g} {name}, "
                    f"then {calm[1]} to {common[1]:g}"
                )
                assert max(figures) <= MOST[name], (service.name, role, name, points)
                assert not FULL or calm[1] <= calm[0] or common[1] <= common[0], (
                    service.name,
                    role,
                    name,
                    points,
                )


def test_no_process_holds_more_and_more_memory(services: Mapping[str, Service]) -> None:
    """Fit a line by least squares to the values at rest in the second half."""
    for service in services.values():
        for role in lasting(service):
            found = growth(service, role)
            print(f"{service.name}: {role:18} {found}")
            most = CHILD_SHARE * found.first_kib if "child" in role else PARENT_KIB
            assert found.grown_kib <= most or not FULL, (service.name, role)
