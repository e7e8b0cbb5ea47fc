"""A worker process is killed at every step of a publication, and the workers after it bring the job to its one end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctdeface_shared.audit.inspection import Trust, inspect_chains
from ctdeface_shared.cli import EXIT_OK, main
from ctdeface_worker.report.model import State
from tests.integration.test_publishing import OVER_AN_EARLIER_OUTPUT
from tests.service.fleet import Fleet, found_site
from tests.service.spools import Ends, drop, ends, job_for, reports
from tests.service.standin import turned

CASES = [f"case {number}" for number in range(3)]
"""Fewer than there are steps: most die again when their publication is resumed."""


@pytest.fixture
def fleet(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Workers that are yet to be started, on a fresh queue of a kind."""
    url = None if kind == "sqlite" else request.getfixturevalue("clean_rabbitmq").url
    made = Fleet(folder=tmp_path, site=found_site(tmp_path, url, work={"max_attempts": 9}))
    made.site.prepare()
    yield made
    made.stop()


def publish_all(fleet: Fleet, cases: list[str], plan: str) -> dict[str, str]:
    """Drop every case and publish its job; return the jobs' names."""
    jobs = {}
    for name in cases:
        drop(fleet.spool, name, plan)
        job = job_for(fleet.spool, name)
        fleet.publish(job)
        jobs[name] = job.job_id
    return jobs


def content(name: str, plan: str) -> dict[str, bytes]:
    """What a case is released as."""
    return {"plan.txt": turned(f"{plan}\n{name}\n".encode()), "0.dcm": turned(f"{name} 0".encode() * 100)}


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["sqlite", "rabbitmq"])
@pytest.mark.usefixtures("kind")
def test_a_worker_killed_at_any_step_of_a_publication_leaves_one_output(fleet: Fleet) -> None:
    """One worker after the other dies, over an earlier output; the next ones finish what is left, and nothing is there or entered twice."""
    fleet.start()
    earlier = publish_all(fleet, CASES, "release")
    fleet.until(fleet.is_idle)
    fleet.stop()
    later = publish_all(fleet, CASES, "release again")
    fleet.start("--die-at", *OVER_AN_EARLIER_OUTPUT)
    fleet.until(lambda: fleet.log.count('"worker_started"') == 2 and fleet.is_idle())  # the second one begins when all have died
    assert fleet.restarts == 0, fleet.log
    assert ends(fleet.spool) == Ends(inbox=[], outbox=CASES, quarantine=[])
    for name in CASES:
        assert files(fleet.spool.outbox / name) == content(name, "release again")
        outputs, originals = fleet.spool.archive / "outputs" / name, fleet.spool.archive / "originals" / name
        assert {path.name: files(path) for path in outputs.iterdir()} == {earlier[name]: content(name, "release")}
        assert sorted(path.name for path in originals.iterdir()) == sorted([earlier[name], later[name]])
        assert {report.job_id: report.state for report in reports(fleet.spool, name)} == dict.fromkeys(
            (earlier[name], later[name]), State.DONE
        )
    assert list(fleet.spool.staging.glob("*/unfinished.json")) == []
    chains = inspect_chains(fleet.spool.audit, Trust())
    assert [problem for chain in chains for problem in chain.problems] == []
    entered = sorted(end.job_id for chain in chains for end in chain.ends)
    assert entered == sorted([*earlier.values(), *later.values()])
    assert main(["audit", "verify", "--spool", str(fleet.spool.audit.parent)]) == EXIT_OK
