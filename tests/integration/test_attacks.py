"""Two people who may drop attack the service and each other; three real users."""

import json
import os
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
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


def refusals(site: AttackedService) -> dict[str, str]:
    """Return the code of each refused case."""
    found = {}
    for report in site.spool.quarantine.glob("*/*/report.json"):
        content = json.loads(report.read_bytes())
        found[content["case"]] = content["result"]["code"]
    return found


def socket_in(folder: Path) -> None:
    """Put a socket into a folder, in spite of the short names that sockets may have."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("s.dcm")
    finally:
        os.chdir(before)


def nest(folder: Path, levels: int) -> None:
    """Put that many folders into each other."""
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)


HOSTILE: dict[str, Callable[[Path, AttackedService], object]] = {
    "link": lambda folder, site: (folder / "l").symlink_to(site.home / "notes.txt"),
    "link-to-folder": lambda folder, site: (folder / "l").symlink_to(site.spool.archive),
    "fifo": lambda folder, _: os.mkfifo(folder / "f.dcm"),
    "socket": lambda folder, _: socket_in(folder),
}
HARMLESS: dict[str, Callable[[Path, AttackedService], object]] = {
    "line\nbreak": lambda folder, _: (folder / "a\nb\x1b[31m").write_bytes(ADAMS.image(1)),
    "far-future": lambda folder, _: os.utime(folder / "IM00001.dcm", (2**33, 2**33)),
    "long-ago": lambda folder, _: os.utime(folder / "IM00001.dcm", (-(2**31), -(2**31))),
}


def test_what_is_not_a_file_is_refused_and_odd_names_and_times_pass(site: AttackedService) -> None:
    """Links, FIFOs, sockets, deep folders, a hard link to a file of somebody else."""
    never_read(site.home)
    before = state_of(site.home)
    clara = drop(CLARA, site.inbox / ".clara", BAKER.images(1))
    deep = {"deep": lambda folder, _: nest(folder, 300)}
    for name, put in (HOSTILE | HARMLESS | deep).items():
        hidden = drop(BEN, site.inbox / f".{name}", ADAMS.images(1))
        with BEN.acting():
            put(hidden, site)
            hidden.rename(site.inbox / name)
    hidden = drop(BEN, site.inbox / ".hard-link", ADAMS.images(1))
    (hidden / "theirs.dcm").hardlink_to(clara / "IM00001.dcm")
    hidden.rename(site.inbox / "hard-link")
    refused = {*HOSTILE, "hard-link"}
    site.until(lambda: refused <= refusals(site).keys())
    assert {refusals(site)[name] for name in refused} == {"UnsafeDrop"}
    assert "limits.depth" in site.watcher_state().unusable["deep"]
    site.until(lambda: all(site.ended(name) for name in HARMLESS))
    assert {name for name in HARMLESS if (site.spool.outbox / name).is_dir()} == HARMLESS.keys()
    assert state_of(site.home) == before
    site.pass_case(CLARA, "after")


def test_what_is_written_through_an_open_descriptor_after_the_taking_changes_nothing(
    site: AttackedService,
) -> None:
    """Of a folder and of a zip file, in the archive and in what is released."""
    images = ADAMS.images(3)
    drop(BEN, site.inbox / "OPEN", images)
    held = [os.open(file, os.O_RDWR) for file in sorted((site.inbox / "OPEN").iterdir())]
    with BEN.acting(), zipfile.ZipFile(site.inbox / ".ZIP", "w") as packed:
        for name, content in images.items():
            packed.writestr(name, content)
    before = (site.inbox / ".ZIP").read_bytes()
    held.append(os.open(site.inbox / ".ZIP", os.O_RDWR))
    (site.inbox / ".ZIP").rename(site.inbox / "ZIP.zip")
    site.until(lambda: len(archived(site, "OPEN")) == len(archived(site, "ZIP")) == len(images))
    for file in held:
        os.pwrite(file, b"changed", 0)
        os.close(file)
    for case in ("OPEN", "ZIP"):
        assert {path.name: path.read_bytes() for path in archived(site, case)} == images
    (kept,) = (path for path in (site.spool.archive / "zips").rglob("*") if path.is_file())
    assert kept.read_bytes() == before


def test_leases_on_dropped_files_do_not_stop_the_others(site: AttackedService) -> None:
    """Opening a leased file may wait for 45 seconds, so these 30 would for 22 minutes."""
    drop(BEN, site.inbox / ".LEASED", ADAMS.images(30))
    site.attack(BEN, "lease", ".LEASED")
    with BEN.acting():
        (site.inbox / ".LEASED").rename(site.inbox / "LEASED")
    site.pass_case(CLARA, "after")
    site.end_attacks()
    site.until(lambda: site.ended("LEASED"))


def test_a_drop_that_cannot_be_removed_ends_nevertheless(site: AttackedService) -> None:
    """A folder inside, in which the service may not delete, belongs to the dropper."""
    hidden = drop(BEN, site.inbox / ".STUCK", {"sub/1.dcm": ADAMS.image(1)})
    with BEN.acting():
        (hidden / "sub").chmod(0o755)
        hidden.rename(site.inbox / "STUCK")
    site.until(lambda: site.ended("STUCK"))
    site.pass_case(CLARA, "after")
    site.until(site.is_idle)
    assert released_patients(site, "STUCK") == {"adams"}
    assert len(list((site.spool.reports / "STUCK").glob("*/report.json"))) == 1


def test_a_department_swapped_for_a_link_moves_no_archived_case() -> None:
    """With cases two levels below the inbox; the link leads to the archived originals."""
    users.require_users()
    deep = {"watch": {"case_depth": 2}}
    with users.shared_folder() as folder, attacked_service(folder, settings=deep) as site:
        department = users.give(site.inbox / "A", BEN, 0o770, make=True)
        drop(BEN, department / "CASE", BAKER.images(3))
        originals = site.spool.archive / "originals"
        site.until(lambda: len(list(originals.glob("A/CASE/*/*"))) == 3)
        before = state_of(originals / "A" / "CASE")
        other = users.give(site.inbox / "B", BEN, 0o770, make=True)
        drop(BEN, other / "CASE", ADAMS.images(200))
        site.attack(
            BEN, "flicker", "B", str(originals / "A"), str(site.spool.audit), str(site.home)
        )
        time.sleep(10)
        site.end_attacks()
        assert state_of(originals / "A" / "CASE") == before
        assert list(site.spool.audit.glob("*/*.jsonl"))
        site.pass_case(CLARA, "A/after")
