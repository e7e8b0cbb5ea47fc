"""Two people who may drop attack the service and each other; three real users."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import users
from tests.support.service.attacked import (
    AttackedService,
    attacked_service,
    drop,
    never_read,
    state_of,
)
from tests.support.service.patients import ADAMS, BAKER, slices_in
from tests.support.users import BEN, CLARA


@pytest.fixture
def site() -> Iterator[AttackedService]:
    """A service whose inbox belongs to root, so that its sticky bit cannot be set."""
    users.require_users()
    with users.shared_folder() as folder, attacked_service(folder) as running:
        yield running


def archived(site: AttackedService, case: str) -> list[Path]:
    """Return the archived originals of a case."""
    return sorted((site.spool.archive / "originals" / case).glob("*/*"))


def release_victim(site: AttackedService, files: int = 5) -> None:
    """Let Clara drop a case, and wait until its originals are archived."""
    drop(CLARA, site.inbox / "VICTIM", BAKER.images(files))
    site.until(lambda: len(archived(site, "VICTIM")) == files)
    site.until(lambda: not os.path.lexists(site.inbox / "VICTIM"))


def released_patients(site: AttackedService, case: str) -> set[str]:
    """Return whose pixels the released files of a case hold."""
    files = [path for path in (site.spool.outbox / case).rglob("*") if path.is_file()]
    return {patient for path in files for patient, _ in slices_in(path.read_bytes())}


def test_a_link_named_like_a_gathering_folder_brings_no_archived_original_back(
    site: AttackedService,
) -> None:
    """`ln -s ../outbox inbox/.VICTIM.together` put every original of VICTIM into the outbox."""
    release_victim(site)
    with BEN.acting():
        (site.inbox / ".VICTIM.together").symlink_to(site.spool.outbox)
    site.pass_case(CLARA, "after")
    site.pass_case(CLARA, "long-after")
    assert site.originals_in_private() == []
    assert {path.name for path in site.spool.outbox.iterdir()} == {"VICTIM", "after", "long-after"}


def test_a_guessed_late_file_in_an_open_folder_brings_no_archived_original_back(
    site: AttackedService,
) -> None:
    """The archived originals came back into a folder of the late drop's mode."""
    release_victim(site)
    found = site.spy(BEN, BAKER.mark, site.inbox, site.home, *site.private)
    drop(BEN, site.inbox / "VICTIM", {"guess.dcm": ADAMS.image(9)}, modes=(0o777, 0o666))
    site.pass_case(CLARA, "after")
    site.pass_case(CLARA, "long-after")
    site.end_attacks()
    assert found.read_text().splitlines() == []
    assert released_patients(site, "VICTIM") == {"baker"}


def test_a_folder_swapped_while_a_zip_file_is_unpacked_writes_nowhere_else(
    site: AttackedService,
) -> None:
    """Members were written through the link: names and content of the attacker's choice."""
    never_read(site.home)
    before = state_of(site.home)
    site.attack(BEN, "replace", ".EVIL.*", str(site.home))
    with BEN.acting():
        with zipfile.ZipFile(site.inbox / ".beginning", "w") as packed:
            for number in range(3000):
                packed.writestr(f"{number}.dcm", ADAMS.image(number))
        (site.inbox / ".beginning").chmod(0o660)
        (site.inbox / ".beginning").rename(site.inbox / "EVIL.zip")
    site.pass_case(CLARA, "after")
    site.until(lambda: not os.path.lexists(site.inbox / "EVIL.zip"))
    site.end_attacks()
    assert state_of(site.home) == before
    assert site.originals_in_private() == []


def test_a_case_swapped_for_a_link_after_its_scan_moves_nothing_out_of_the_links_target(
    site: AttackedService,
) -> None:
    """Everything in the audit chain counted as a late file of the case, and was moved away."""
    site.pass_case(CLARA, "before")
    drop(BEN, site.inbox / "CASE", BAKER.images(50))
    site.attack(BEN, "after-scan", "CASE", str(site.spool.audit), str(site.spool.outbox / "CASE"))
    site.until(lambda: site.ended("CASE"))
    site.pass_case(CLARA, "after")
    site.pass_case(CLARA, "long-after")
    site.end_attacks()
    verified = site.command("audit", "verify", "--allow-unsigned")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    inbox = {path.name for path in site.inbox.rglob("*") if not path.name.endswith(".dcm")}
    assert inbox <= {"CASE"} | {name for name in inbox if name.endswith(".stolen")}


def test_a_link_in_the_place_of_a_moved_case_gets_no_late_file_into_a_released_case(
    site: AttackedService,
) -> None:
    """A file added after the move was put back along the link: an original in the outbox."""
    drop(BEN, site.inbox / "CASE", BAKER.images(200))
    site.attack(BEN, "follow", "CASE", str(site.spool.outbox / "CASE"))
    site.until(lambda: site.ended("CASE"))
    site.pass_case(CLARA, "after")
    site.pass_case(CLARA, "long-after")
    site.end_attacks()
    assert site.originals_in_private() == []


def test_a_folder_swapped_during_a_replay_gets_no_archived_original(site: AttackedService) -> None:
    """The replay copied the archived originals into a hidden folder of the inbox."""
    release_victim(site, files=500)
    found = site.spy(BEN, BAKER.mark, site.inbox, site.home, *site.private)
    site.attack(BEN, "replace", ".*.replay", str(site.spool.outbox))
    replayed = site.command("replay", "VICTIM")
    site.pass_case(CLARA, "after")
    site.end_attacks()
    assert site.originals_in_private() == []
    assert found.read_text().splitlines() == []
    assert replayed.returncode == 0, replayed.stderr
    site.until(lambda: len(list((site.spool.reports / "VICTIM").glob("*/report.json"))) == 2)
