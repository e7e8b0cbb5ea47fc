"""The watcher's ledger remembers what was published, across restarts."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import pytest

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.ledger import Entry, Ledger
from ctdeface_watcher.jobs.rebuild_ledger import rebuild


def entry(number: int, case: str = "a") -> Entry:
    """Make an entry published at second `number`."""
    return Entry(
        job_id=f"job-{number}",
        case=case,
        digest=f"digest-{number}",
        generation=0,
        published_at=float(number),
    )


def test_open_jobs_are_remembered_across_restarts_oldest_first(tmp_path: Path) -> None:
    """Added jobs are there when the file is opened again."""
    with Ledger(tmp_path) as ledger:
        assert ledger.is_empty()
        ledger.add(entry(2))
        ledger.add(entry(1))
    with Ledger(tmp_path) as ledger:
        assert ledger.open_jobs() == (entry(1), entry(2))
        assert not ledger.is_empty()


def test_a_job_is_noted_and_closed_once(tmp_path: Path) -> None:
    """Adding it again does not reopen it, and a second end changes nothing."""
    with Ledger(tmp_path) as ledger:
        ledger.add(entry(1))
        ledger.close_job("job-1", "done")
        ledger.close_job("job-1", "refused")
        ledger.add(entry(1))
        assert ledger.open_jobs() == ()
        assert [one.closed for one in ledger.of_case("a")] == ["done"]
        assert ledger.of_case("b") == ()


def test_of_the_ended_jobs_only_the_newest_are_remembered(tmp_path: Path) -> None:
    """At least one stays; jobs that have not ended all stay, however old."""
    with Ledger(tmp_path) as ledger:
        for number in range(10):
            ledger.add(entry(number))
            if number > 1:
                ledger.close_job(f"job-{number}", "done")
        ledger.trim(20)
        assert len(ledger.of_case("a")) == 10
        ledger.trim(3)
        assert [one.job_id for one in ledger.of_case("a")] == [
            "job-0",
            "job-1",
            "job-7",
            "job-8",
            "job-9",
        ]
        ledger.trim(0)
        assert [one.job_id for one in ledger.of_case("a")] == ["job-0", "job-1", "job-9"]


@pytest.mark.parametrize("damage", ["no database", "beginning", "middle"])
def test_a_damaged_ledger_is_set_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    """Any part of the file may be broken; nothing is overwritten."""
    with Ledger(tmp_path) as ledger:
        for number in range(500):
            ledger.add(entry(number))
    broken = damaged(tmp_path / "ledger.sqlite3", damage)
    for count in (1, 2):
        with Ledger(tmp_path) as ledger:
            assert ledger.is_empty()
            ledger.add(entry(1))
            assert ledger.open_jobs() == (entry(1),)
        assert (tmp_path / f"ledger.sqlite3.damaged-{count}").exists()
        damaged(tmp_path / "ledger.sqlite3", "no database")
    assert (tmp_path / "ledger.sqlite3.damaged-1").read_bytes() == broken


def test_damage_found_while_it_is_used_is_healed(tmp_path: Path) -> None:
    """The use that finds it fails, and the next one works."""
    # The file is larger than SQLite's cache.
    with Ledger(tmp_path):
        rows = ((f"job-{number}", "a", "d" * 64, 0, 0.0, None) for number in range(40_000))
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection, connection:
            connection.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?)", rows)
    with Ledger(tmp_path) as ledger:
        assert not ledger.replace_damaged()
        damaged(tmp_path / "ledger.sqlite3", "middle")
        with pytest.raises(StorageUnavailable, match=r"ledger\.sqlite3"):
            ledger.open_jobs()
        assert ledger.replace_damaged()
        assert ledger.is_empty()
    assert (tmp_path / "ledger.sqlite3.damaged-1").exists()


def damaged(file: Path, how: str) -> bytes:
    """Damage a database file; return what it holds then."""
    content = bytearray(b"no database at all" * 100 if how == "no database" else file.read_bytes())
    if how == "beginning":
        content[:16] = bytes(16)
    if how == "middle":
        content[4096:-4096] = b"\xa5" * (len(content) - 8192)
    file.write_bytes(content)
    return bytes(content)


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    """A file that cannot be created is another error, and nothing is set aside."""
    with pytest.raises(StorageUnavailable):
        Ledger(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["a folder", "a pipe", "a link to itself", "other tables"])
def test_what_is_not_a_ledger_is_set_aside(tmp_path: Path, other: str) -> None:
    """Otherwise the watcher would not start again."""
    file = tmp_path / "ledger.sqlite3"
    if other == "a folder":
        file.mkdir()
    elif other == "a pipe":
        os.mkfifo(file)
    elif other == "a link to itself":
        file.symlink_to(file)
    else:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE jobs (other TEXT)")
    with Ledger(tmp_path) as ledger:
        assert ledger.is_empty()
    assert os.path.lexists(tmp_path / "ledger.sqlite3.damaged-1")


def test_what_stays_in_the_inbox_is_remembered_until_it_changes_or_is_gone(
    tmp_path: Path,
) -> None:
    """Also under a name that is not UTF-8; an inbox that looks empty costs only the oldest."""
    odd = os.fsdecode(b"bytes-\xff")
    with Ledger(tmp_path) as ledger:
        for name in ("a", odd, "b", "c"):
            ledger.add_kept(name, "1")
        ledger.add_kept("a", "2")
        assert ledger.has_kept("a", "2")
        assert not ledger.has_kept("a", "1")
        ledger.trim_kept([odd], spare=2)
    with Ledger(tmp_path) as ledger:
        known = [name for name in ("a", odd, "b", "c") if ledger.has_kept(name, "1")]
        assert known == [odd, "c"]
        assert ledger.has_kept("a", "2")
        ledger.trim_kept([], spare=0)
        assert not ledger.has_kept(odd, "1")


def test_an_empty_ledger_is_filled_from_the_reports(tmp_path: Path) -> None:
    """Foreign and damaged reports, and names that are not UTF-8, are left out."""
    spool = ServiceSpool.under(tmp_path)
    for case, state in (
        ("a", "done"),
        ("group/b", "refused"),
        ("c", "prepared"),
        (os.fsdecode(b"\xff"), "done"),
    ):
        folder = spool.reports / case / str(uuid5(NAMESPACE_URL, state + str(os.fsencode(case))))
        folder.mkdir(parents=True)
        report = {
            "job_id": folder.name,
            "state": state,
            "manifest": {"digest": "d"},
            "generation": 0,
        }
        report |= {"created_at": "2026-01-01T00:00:05+00:00", "result": {"code": "", "reason": ""}}
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (spool.reports / "d" / str(uuid5(NAMESPACE_URL, "d"))).mkdir(parents=True)
    (spool.reports / "d" / str(uuid5(NAMESPACE_URL, "d")) / "report.json").write_text(
        "{", encoding="utf-8"
    )
    with Ledger(tmp_path) as ledger:
        rebuild(ledger, spool)
        assert [(one.case, one.published_at, one.closed) for one in ledger.open_jobs()] == [
            ("c", 1_767_225_605.0, None)
        ]
        assert [one.closed for case in ("a", "group/b") for one in ledger.of_case(case)] == [
            "done",
            "refused",
        ]
        assert not ledger.of_case("d")
