"""Somebody swaps names in the inbox without a pause while cases pass.

Links, renames, hard links, FIFOs and deletions, also inside folders that were already taken,
through descriptors that stay open. The suite runs it small; `make attack` runs 100 cases per queue.
"""

import json
import os
import random
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.rabbitmq_node import RabbitNode
from tests.support import users
from tests.support.service.attacked import (
    AttackedService,
    attacked_service,
    drop,
    never_read,
    state_of,
)
from tests.support.service.patients import ADAMS, BAKER, ORIGINAL, Files, slices_in
from tests.support.users import BEN, CLARA, SERVICE, User

FULL = os.environ.get("CTDEFACE_TEST_ATTACK") == "full"
CASES = 100 if FULL else 16
SEED = int(os.environ.get("CTDEFACE_TEST_SEED", "20261128"))
_STICKY = (SERVICE.uid, 0o3770)
_OPEN = (0, 0o770)
_IMAGES = 4


@pytest.fixture(params=["sqlite", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Both queues."""
    users.require_users()
    if request.param == "sqlite":
        return None
    node: RabbitNode = request.getfixturevalue("clean_rabbitmq")
    return node.url


@pytest.fixture(params=[_STICKY, _OPEN], ids=["sticky", "open"])
def site(request: pytest.FixtureRequest, url: str | None) -> Iterator[AttackedService]:
    """A service with an inbox of its own, or one that cannot be made sticky."""
    with (
        users.shared_folder() as folder,
        attacked_service(folder, url, inbox=request.param) as running,
    ):
        yield running


def drop_zip(user: User, place: Path, files: Files) -> None:
    """Drop a zip file that others may read only."""
    with user.acting():
        hidden = place.with_name(f".{place.name}.zip")
        with zipfile.ZipFile(hidden, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        hidden.chmod(0o640)
        hidden.rename(place.with_name(f"{place.name}.zip"))


def drop_all(site: AttackedService, chance: random.Random) -> None:
    """Drop the cases of both in turns: folders and zip files, writable for the group or not."""
    for number in range(CASES):
        user, name, patient = ((CLARA, "clara", BAKER), (BEN, "ben", ADAMS))[number % 2]
        place, files = site.inbox / f"{name}-{number:03d}", patient.images(_IMAGES)
        if chance.random() < 0.3:
            drop_zip(user, place, files)
        elif user is CLARA:
            drop(user, place, files, modes=(0o750, 0o640))
        else:
            drop(user, place, files, modes=chance.choice([(0o770, 0o660), (0o755, 0o644)]))


def published_jobs(site: AttackedService) -> set[str]:
    """Return the ids of all jobs that the watcher published."""
    log = site.processes["watcher"].log.read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in log if line.startswith("{")]
    return {line["job_id"] for line in lines if line["event"] == "job_published"}


def ended_jobs(site: AttackedService) -> list[str]:
    """Return the id of each report of a job."""
    return [path.parent.name for path in site.spool.reports.glob("*/*/report.json")]


def released(site: AttackedService, case: str) -> list[tuple[str, int]]:
    """Return the released slices of a case."""
    files = [path for path in (site.spool.outbox / case).rglob("*") if path.is_file()]
    return sorted(slice_ for path in files for slice_ in slices_in(path.read_bytes()))


def begin_attacks(site: AttackedService, canaries: Sequence[Path]) -> list[Path]:
    """Start two attackers and two spies; return what the spies find."""
    spool = site.spool
    found = [
        site.spy(None, ORIGINAL, *site.private),
        site.spy(BEN, BAKER.mark, site.home, *spool.private, spool.outbox),
    ]
    targets = [str(place) for place in (*canaries, *spool.private, spool.outbox, Path("/etc"))]
    for number in range(2):
        site.attack(BEN, "disturb", str(SEED + number), *targets)
    return found


@pytest.mark.timeout(1800)
def test_nothing_gets_in_or_out_while_names_are_swapped(site: AttackedService) -> None:
    """And each case of the other person ends once, with exactly its files."""
    site.pass_case(CLARA, "old")
    originals = site.spool.archive / "originals"
    site.until(lambda: any(originals.glob("old/*/*")))
    canaries = (site.home, originals / "old")
    for folder in canaries:
        never_read(folder)
    before = [state_of(folder) for folder in canaries]
    found = begin_attacks(site, canaries)
    drop_all(site, random.Random(SEED))
    clara = [f"clara-{number:03d}" for number in range(0, CASES, 2)]
    if _is_sticky(site):
        site.until(lambda: all(site.ended(case) for case in clara), seconds=60 + 10 * CASES)
    site.end_attacks()
    site.pass_case(CLARA, "after")
    site.until(site.is_idle, seconds=60 + 5 * CASES)

    assert [place.read_text(encoding="utf-8") for place in found] == ["", ""]
    assert site.originals_in_private() == []
    assert [state_of(folder) for folder in canaries] == before
    assert all(process.is_running for process in site.processes.values()), site.logged()
    assert_each_job_ended_once(site)
    if _is_sticky(site):
        expected = sorted(("baker", number) for number in range(1, _IMAGES + 1))
        assert {case: released(site, case) for case in clara} == dict.fromkeys(clara, expected)


def assert_each_job_ended_once(site: AttackedService) -> None:
    """Every job that was published has one report, and the audit log agrees."""
    ended = ended_jobs(site)
    print(f"{len(ended)} jobs ended, {len(list(site.spool.outbox.iterdir()))} cases in the outbox")
    assert len(ended) == len(set(ended))
    assert published_jobs(site) <= set(ended)
    verified = site.command("audit", "verify", "--allow-unsigned")
    assert verified.returncode == 0, verified.stdout


def _is_sticky(site: AttackedService) -> bool:
    return bool(site.inbox.stat().st_mode & 0o1000)
