"""A worker killed at every step of a publication leaves a job that others finish."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctdeface_shared.audit.inspection import Trust, inspect_chains
from ctdeface_shared.commands.main import main
from ctdeface_shared.exit_codes import EXIT_OK
from ctdeface_worker.report.model import State
from tests.integration.test_publishing import OVER_AN_EARLIER_OUTPUT
from tests.support.service.local_service import LocalService, configured_service
from tests.support.service.spools import Ends, drop, ends, job_for, reports
from tests.support.service.stand_in_pipeline import reversed_bytes

CASES = [f"case {number}" for number in range(3)]
"""Fewer than there are steps: most die again when their publication is resumed."""


@pytest.fixture
def local_service(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[LocalService]:
    """Workers that are yet to be started, on a fresh queue of a kind."""
    url = None if kind == "sqlite" else request.getfixturevalue("clean_rabbitmq").url
    made = LocalService(
        folder=tmp_path, service=configured_service(tmp_path, url, work={"max_attempts": 9})
    )
    made.service.prepare()
    yield made
    made.stop()


def publish_all(local_service: LocalService, cases: list[str], plan: str) -> dict[str, str]:
    """Drop every case and publish its job; return the jobs' names."""
    jobs = {}
    for name in cases:
        drop(local_service.spool, name, plan)
        job = job_for(local_service.spool, name)
        local_service.publish(job)
        jobs[name] = job.job_id
    return jobs


def content(name: str, plan: str) -> dict[str, bytes]:
    """What a case is released as."""
    return {
        "plan.txt": reversed_bytes(f"{plan}\n{name}\n".encode()),
        "0.dcm": reversed_bytes(f"{name} 0".encode() * 100),
    }


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["sqlite", "rabbitmq"])
@pytest.mark.usefixtures("kind")
def test_a_worker_killed_at_any_step_of_a_publication_leaves_one_output(
    local_service: LocalService,
) -> None:
    """Workers die in turn over an earlier output; nothing is published or logged twice."""
    local_service.start()
    earlier = publish_all(local_service, CASES, "release")
    local_service.until(local_service.is_idle)
    local_service.stop()
    later = publish_all(local_service, CASES, "release again")
    local_service.start("--die-at", *OVER_AN_EARLIER_OUTPUT)
    local_service.until(
        lambda: local_service.log.count('"worker_started"') == 2 and local_service.is_idle()
    )  # the second one begins when all have died
    assert local_service.restarts == 0, local_service.log
    assert ends(local_service.spool) == Ends(inbox=[], outbox=CASES, quarantine=[])
    for name in CASES:
        assert files(local_service.spool.outbox / name) == content(name, "release again")
        outputs, originals = (
            local_service.spool.archive / "outputs" / name,
            local_service.spool.archive / "originals" / name,
        )
        assert {path.name: files(path) for path in outputs.iterdir()} == {
            earlier[name]: content(name, "release")
        }
        assert sorted(path.name for path in originals.iterdir()) == sorted(
            [earlier[name], later[name]]
        )
        assert {
            report.job_id: report.state for report in reports(local_service.spool, name)
        } == dict.fromkeys((earlier[name], later[name]), State.DONE)
    assert list(local_service.spool.staging.glob("*/unfinished.json")) == []
    chains = inspect_chains(local_service.spool.audit, Trust())
    assert [problem for chain in chains for problem in chain.problems] == []
    entered = sorted(end.job_id for chain in chains for end in chain.ends)
    assert entered == sorted([*earlier.values(), *later.values()])
    assert main(["audit", "verify", "--spool", str(local_service.spool.audit.parent)]) == EXIT_OK
