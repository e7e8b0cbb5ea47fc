"""Marks in names and headers stay where the page says, also when cases fail."""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_IMODE

import pytest

from tests.integration.rabbitmq_node import RabbitNode, running_node
from tests.support.service.identifying_runs import (
    PLANS,
    ServiceRun,
    run_batch,
    run_failing_stand_in,
    run_real_pipeline,
)
from tests.support.service.identifying_text import (
    CASES,
    EVERYTHING,
    FOLDER,
    HEADERS,
    NAMES,
    SERIES,
    contents,
    found_in,
)
from tests.support.service.spools import ends, reports

UIDS = {"uid": EVERYTHING["uid"]}
STATE = ("watcher.json", "ledger.sqlite3")
PAGE = (Path(__file__).parents[2] / "docs/trust/where-names-are.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> ServiceRun:
    """The service with the real pipeline, when it has ended."""
    return run_real_pipeline(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A queue server of this module: every job and every line of its log is of the run below."""
    with running_node(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory, node: RabbitNode) -> ServiceRun:
    """The service with the stand-in, when it has ended."""
    return run_failing_stand_in(tmp_path_factory.mktemp("failing"), node.url)


def codes(ran: ServiceRun) -> Mapping[str, str]:
    """Return what the reports say about each case."""
    there = ends(ran.service.spool)
    return {
        name: report.result.code
        for name in (*there.outbox, *there.quarantine)
        for report in reports(ran.service.spool, name)
    }


def logs(ran: ServiceRun) -> Iterator[tuple[str, bytes]]:
    """Yield every log of a run."""
    yield from contents([ran.log])
    if (ran.service.state_dir / "logs").exists():
        yield from contents([ran.service.state_dir / "logs"])


def logs_of_server(node: RabbitNode) -> Sequence[bytes]:
    """Return what RabbitMQ itself wrote down and printed."""
    return [
        path.read_bytes() for path in (*sorted(node.folder.glob("*.log*")), node.folder / "output")
    ]


def test_the_real_pipeline_met_every_kind_of_case(real: ServiceRun) -> None:
    """Each case ends as it should, and released files keep their marks."""
    assert codes(real) == {name: code for name, (code, _) in CASES.items()} | {
        FOLDER: "UnsafeArchive"
    }
    released = b"".join(content for _, content in contents([real.service.spool.outbox]))
    assert set(found_in(released)) == set(EVERYTHING)


def test_the_stand_in_failed_with_every_error(failing: ServiceRun) -> None:
    """Every code of a refusal, a hanging stage, a crash, a kill, bugs, and dead letters occur."""
    wanted = {f"{FOLDER} {plan}": code for plan, code in PLANS.items()}
    # Files without a patient do not join the earlier case, and are a case of their own.
    assert codes(failing) == wanted | {f"{FOLDER} release-2": ""}


@pytest.mark.parametrize("run", ["real", "failing"])
def test_logs_hold_no_mark(run: str, request: pytest.FixtureRequest) -> None:
    """Neither lines nor tracebacks nor what libraries say; and there are plenty of them."""
    ran: ServiceRun = request.getfixturevalue(run)
    written = dict(logs(ran))
    written_text = b"".join(written.values())
    assert (
        len(
            re.findall(
                rb'"event": "(?:attempt_begun|stage_begun|job_settled|attempt_failed)"',
                written_text,
            )
        )
        > 20
    )
    assert {path: found_in(content) for path, content in written.items() if found_in(content)} == {}


@pytest.mark.usefixtures("failing")
def test_the_log_of_the_queue_server_holds_no_mark(node: RabbitNode) -> None:
    """It names connections and queues of this run, not messages."""
    written = logs_of_server(node)
    assert b"authenticated and granted access to vhost" in b"".join(written)
    assert found_in(b"\0".join(written)) == []


@pytest.mark.parametrize("run", ["real", "failing"])
def test_pages_events_and_audit_log_hold_no_mark(run: str, request: pytest.FixtureRequest) -> None:
    """Metrics, readiness, events, audit chains and attempt logs."""
    ran: ServiceRun = request.getfixturevalue(run)
    spool = ran.service.spool
    assert any("ctdeface_worker_jobs_total" in page for page in ran.pages)
    assert found_in("".join(ran.pages).encode()) == []
    if run == "failing":  # with RabbitMQ; the embedded queue keeps no events
        assert len(ran.events) >= len(ends(spool).outbox)
    assert found_in(b"".join(ran.events)) == []
    chains = dict(contents([spool.inbox.parent / "audit"]))
    assert sum(content.count(b"\n") for content in chains.values()) >= len(codes(ran)) - 1
    attempts = {str(path): path.read_bytes() for path in spool.reports.rglob("attempts.log")}
    assert len(attempts) >= len(ends(spool).outbox)
    assert {
        path: found_in(content)
        for path, content in (chains | attempts).items()
        if found_in(content)
    } == {}


@pytest.mark.parametrize("run", ["real", "failing"])
def test_state_and_queue_hold_names_of_cases_and_nothing_of_their_headers(
    run: str, request: pytest.FixtureRequest
) -> None:
    """`watcher.json`, ledger and queue name cases, and only the owner can read them."""
    ran: ServiceRun = request.getfixturevalue(run)
    state = [path for path in ran.service.state_dir.iterdir() if path.is_file()]
    everything = b"".join(path.read_bytes() for path in state)
    assert found_in(everything, NAMES)
    assert found_in(everything, {**HEADERS, **UIDS, **SERIES}) == []
    private = [
        ran.service.state_dir,
        *ran.service.spool.private,
        ran.service.spool.inbox.parent / "audit",
    ]
    assert {S_IMODE(folder.stat().st_mode) for folder in private} == {0o700}


def test_reports_hold_names_and_labels_of_series_and_nothing_else_of_the_headers(
    real: ServiceRun,
) -> None:
    """Names of cases and files, UIDs and descriptions of series, but no patient."""
    reports = b"".join(content for _, content in contents([real.service.spool.reports]))
    assert set(found_in(reports)) == {*NAMES, *UIDS, *SERIES}


def test_the_page_says_where_names_and_numbers_are(
    real: ServiceRun, failing: ServiceRun, node: RabbitNode
) -> None:
    """Its table is what is found, row by row."""
    spool, state = real.service.spool, real.service.state_dir
    places: Mapping[str, Sequence[bytes]] = {
        "logs of watcher, workers and `up`": [content for _, content in logs(real)],
        "`/metrics`, `/readyz`, `/healthz`": [page.encode() for page in real.pages],
        "events of the queue": list(failing.events),
        "RabbitMQ's own log": logs_of_server(node),
        "audit log": [content for _, content in contents([spool.inbox.parent / "audit"])],
        "`reports/…/attempts.log`": [
            path.read_bytes() for path in spool.reports.rglob("attempts.log")
        ],
        **{
            f"`state/{name}`": [path.read_bytes() for path in state.glob(f"{name}*")]
            for name in STATE
        },
        "`state/queue.sqlite3`, while a job waits": list(real.queued),
        "reports": [content for _, content in contents([spool.reports])],
        "outbox": [content for _, content in contents([spool.outbox])],
    }
    rows = [
        [cell.strip() for cell in line.split("|")[1:6]]
        for line in PAGE.splitlines()
        if line.startswith("| ")
    ][1:]
    assert [row[0] for row in rows] == list(places)
    for place, *answers in rows:
        whole = b"\0".join(places[place])
        assert whole, place
        assert answers == [
            "yes" if found_in(whole, marks) else "no" for marks in (NAMES, UIDS, SERIES, HEADERS)
        ], place


def test_the_batch_command_logs_no_mark_and_names_cases_to_its_user(
    real: ServiceRun, tmp_path: Path
) -> None:
    """Log lines hold no mark; lines for a person name case, file and UID of a series."""
    done = run_batch(tmp_path, real.log.parent / "batch")
    lines = (done.stdout + done.stderr).splitlines()
    logged = [line for line in lines if line.startswith("{")]
    assert all(json.loads(line)["event"] for line in logged)
    assert found_in("\n".join(logged).encode()) == []
    assert set(found_in("\n".join(lines).encode())) == {*NAMES, *UIDS}


def test_a_mark_is_found_however_it_is_written() -> None:
    """Quoted, escaped, in other encodings, in base64; and what looks a little like one is none."""
    name = EVERYTHING["foreign name"]
    written = (
        json.dumps(name).encode(),
        name.encode("latin-1").upper(),
        f"x{name}".encode("utf-16-le"),
        repr(name.encode()).encode(),
    )
    for content in (
        *written,
        *(base64.b64encode(bytes(before) + name.encode() + b"tail") for before in range(3)),
    ):
        assert found_in(b"..." + content + b"...") == ["foreign name"]
    assert found_in(b"Qzm QZ 1853-09-17 9182736455463728") == []
