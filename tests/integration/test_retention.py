"""Expired files are removed, and nothing else."""

import json
import os
import time
from pathlib import Path

import pytest

from ctdeface_shared.jobs.taken import TakenCase, new_record
from ctdeface_shared.settings.sections import SpoolSection
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.retention import DAY_SECONDS, Removed, remove_expired, remove_remains

JOB = "6f0b6a3c-0d1f-5c6e-9a53-5f0c1c1d7a10"
OTHER = "0f0b6a3c-0d1f-5c6e-9a53-5f0c1c1d7a10"
RULES = SpoolSection(archive_days=1, quarantine_days=2, reports_days=3)


def spool_with_one_job_everywhere(root: Path) -> ServiceSpool:
    """Lay the same job in archive, quarantine and reports."""
    spool = ServiceSpool.under(root)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    for place in (
        spool.archive / "originals",
        spool.archive / "outputs",
        spool.quarantine,
        spool.reports,
    ):
        (place / "group/case" / JOB).mkdir(parents=True)
        (place / "group/case" / JOB / "file").write_text("x", encoding="utf-8")
    return spool


def test_nothing_goes_before_its_time_or_without_a_rule(tmp_path: Path) -> None:
    """Half a day is too early for all; without days everything is kept forever."""
    spool = spool_with_one_job_everywhere(tmp_path)
    assert (
        remove_expired(spool, RULES, case_depth=2, now=time.time() + DAY_SECONDS / 2) == Removed()
    )
    assert (
        remove_expired(spool, SpoolSection(), case_depth=2, now=time.time() + 1000 * DAY_SECONDS)
        == Removed()
    )


def test_each_place_keeps_for_its_own_time(tmp_path: Path) -> None:
    """Archive first, then the quarantine; the report waits for both and leaves no empty folder."""
    spool = spool_with_one_job_everywhere(tmp_path)
    assert remove_expired(
        spool, RULES, case_depth=2, now=time.time() + 1.5 * DAY_SECONDS
    ) == Removed(archive=2)
    assert remove_expired(
        spool, RULES, case_depth=2, now=time.time() + 3.5 * DAY_SECONDS
    ) == Removed(quarantine=1, reports=1)
    assert not any(spool.reports.iterdir())


def test_the_report_of_a_case_that_is_still_there_stays(tmp_path: Path) -> None:
    """It proves that the released case is done."""
    spool = spool_with_one_job_everywhere(tmp_path)
    (spool.outbox / "group/case").mkdir(parents=True)
    assert remove_expired(spool, RULES, case_depth=2, now=time.time() + 9 * DAY_SECONDS) == Removed(
        archive=2, quarantine=1
    )
    assert (spool.reports / "group/case" / JOB / "file").exists()


def report(spool: ServiceSpool, state: str) -> None:
    """Write a report with a state for the job."""
    told = {
        "job_id": JOB,
        "state": state,
        "generation": 0,
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    told |= {"manifest": {"digest": "d"}, "result": {"code": "", "reason": ""}}
    (spool.reports / "group/case" / JOB / "report.json").write_text(
        json.dumps(told), encoding="utf-8"
    )


@pytest.mark.parametrize("state", ["prepared", "published"])
def test_nothing_of_a_case_goes_while_it_has_a_job_that_has_not_ended(
    tmp_path: Path, state: str
) -> None:
    """However old it is; when the job has ended, everything goes."""
    spool = spool_with_one_job_everywhere(tmp_path)
    report(spool, state)
    assert (
        remove_expired(spool, RULES, case_depth=2, now=time.time() + 9 * DAY_SECONDS) == Removed()
    )
    report(spool, "done")
    assert remove_expired(spool, RULES, case_depth=2, now=time.time() + 9 * DAY_SECONDS) == Removed(
        archive=2, quarantine=1, reports=1
    )


def test_a_case_that_is_named_like_a_job_is_no_job(tmp_path: Path) -> None:
    """Its jobs go one by one, not the case with all of them."""
    spool = spool_with_one_job_everywhere(tmp_path)
    (spool.quarantine / "group" / OTHER / JOB).mkdir(parents=True)
    os.utime(spool.quarantine / "group" / OTHER)
    assert (
        remove_expired(spool, RULES, case_depth=2, now=time.time() + 9 * DAY_SECONDS).quarantine
        == 2
    )
    assert not (spool.quarantine / "group" / OTHER).exists()
    (spool.reports / "group" / OTHER / JOB).mkdir(parents=True)
    (spool.outbox / "group" / OTHER).mkdir(parents=True)
    assert (
        remove_expired(spool, RULES, case_depth=2, now=time.time() + 9 * DAY_SECONDS) == Removed()
    )


def test_a_removal_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    """A folder that was being removed has a name that no job has."""
    spool = spool_with_one_job_everywhere(tmp_path)
    half = (spool.quarantine / "group/case" / JOB).rename(
        spool.quarantine / "group/case" / f".{JOB}.removed"
    )
    assert remove_expired(spool, RULES, case_depth=2, now=time.time()) == Removed()
    assert not half.parent.parent.exists()


def test_names_in_what_a_job_holds_do_not_count(tmp_path: Path) -> None:
    """Originals may be in folders named like jobs; they are removed with their job."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    originals = spool.quarantine / "case" / JOB / "originals"
    (originals / OTHER).mkdir(parents=True)
    os.utime(spool.quarantine / "case" / JOB)
    assert remove_expired(spool, RULES, now=time.time() + DAY_SECONDS) == Removed()
    assert (originals / OTHER).is_dir()
    assert remove_expired(spool, RULES, now=time.time() + 9 * DAY_SECONDS) == Removed(quarantine=1)
    assert not any(spool.quarantine.iterdir())


def test_reports_and_originals_of_a_case_that_was_taken_again_stay(tmp_path: Path) -> None:
    """Its late files may still be combined with them."""
    spool = spool_with_one_job_everywhere(tmp_path)
    taken = TakenCase.create(spool, new_record("group/case", "group/case"))
    later = time.time() + 9 * DAY_SECONDS
    assert remove_expired(spool, RULES, case_depth=2, now=later) == Removed()
    taken.remove()
    assert remove_expired(spool, RULES, case_depth=2, now=later).archive == 2


def test_what_is_left_of_ended_cases_is_removed_and_no_case(tmp_path: Path) -> None:
    """A folder without record, job and files; one that got no name when its maker was killed."""
    spool = spool_with_one_job_everywhere(tmp_path)
    case = TakenCase.create(spool, new_record("a", "a"))
    damaged, files = (TakenCase(spool.taken / (digit * 32)) for digit in "12")
    damaged.folder.mkdir()
    (damaged.folder / "drop.json").write_text("{", encoding="utf-8")
    (files.files / "sub").mkdir(parents=True)
    (spool.taken / ("3" * 32) / "drop" / "sub").mkdir(parents=True)
    hidden = spool.taken / f".{'4' * 32}"
    hidden.mkdir()
    remove_remains(spool, time.time())
    kept = {case.folder, damaged.folder, files.folder}
    assert set(spool.taken.iterdir()) == {*kept, hidden}
    remove_remains(spool, time.time() + DAY_SECONDS)
    assert set(spool.taken.iterdir()) == kept


def test_a_quarantined_folder_that_is_nested_very_deeply_is_removed(tmp_path: Path) -> None:
    """Deeper than the call stack of Python."""
    spool = spool_with_one_job_everywhere(tmp_path)
    place = os.open(spool.quarantine / "group/case" / JOB, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=place)
        below = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    removed = remove_expired(spool, RULES, case_depth=2, now=time.time() + 2.5 * DAY_SECONDS)
    assert removed == Removed(archive=2, quarantine=1)
    assert not any(spool.quarantine.iterdir())
