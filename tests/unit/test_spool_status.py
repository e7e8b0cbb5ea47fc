"""Where the cases of a spool are, as its folders tell."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import pytest

from ctdeface_shared.jobs.history import JobReader
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.replay_requests import ReplayRequest, write_order
from ctdeface_shared.jobs.taken import TakenCase, new_record
from ctdeface_shared.status.spool_status import SpoolScanner, SpoolStatus
from ctdeface_shared.status.text import duration, refused_lines, spool_lines
from ctdeface_shared.storage.spool import ServiceSpool

NOW = 2_000_000_000.0


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path)
    made.prepare(outbox_mode=0o750)
    made.inbox.mkdir()
    return made


def in_flight(seen: SpoolStatus) -> tuple[str, ...]:
    """Names of the cases in flight."""
    return tuple(one.case for one in seen.in_flight)


def drop(spool: ServiceSpool, case: str, content: str = "slice") -> Path:
    """Put a case of one file into the inbox."""
    folder = spool.inbox / case
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_text(content, encoding="utf-8")
    os.utime(folder / "1.dcm", (NOW - 900, NOW - 900))
    return folder


def job(spool: ServiceSpool, case: str, number: int = 0) -> Path:
    """Make the report folder of a job."""
    folder = spool.reports / case / str(uuid5(NAMESPACE_URL, f"{case} {number}"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tell(
    folder: Path,
    state: str,
    *,
    digest: str = "",
    number: int = 0,
    ago: float = 60.0,
    name: str = "report.json",
    code: str = "FaceNotFound",
    hour: int = 8,
) -> None:
    """Write a report as a worker would."""
    refused = state == "refused"
    content = {
        "state": state,
        "result": {"code": code if refused else "", "reason": "no face" if refused else ""},
        "manifest": {"digest": digest},
        "generation": number,
        "created_at": f"2026-11-21T{hour:02d}:00:{number:02d}.000+00:00",
    }
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    os.utime(folder / name, (NOW - ago, NOW - ago))


def take(spool: ServiceSpool, case: str, *, left_in_inbox: bool = False) -> TakenCase:
    """Take a case as the watcher would, without files."""
    record = replace(new_record(case, case), left_in_inbox=left_in_inbox)
    return TakenCase.create(spool, record)


def requested(job_id: str, case: str) -> DefaceJob:
    """A job that was submitted after the reports of `tell`."""
    return DefaceJob(
        job_id=job_id,
        case=case,
        manifest=Manifest(files=1, bytes=5, digest="d" * 64),
        generation=1,
        submitted_at=datetime(2026, 11, 21, 9, tzinfo=UTC),
        options=DefaceOptions(),
        taken="0" * 32,
    )


def begin(folder: Path, what: str = "begun", ago: float = 120.0) -> None:
    """Note an attempt as a worker would."""
    with (folder / "attempts.log").open("a", encoding="utf-8") as log:
        log.write(f"2026-11-21T08:00:00+00:00 host 1 {what}\n")
    os.utime(folder / "attempts.log", (NOW - ago, NOW - ago))


def quarantine(spool: ServiceSpool, case: str, folder: Path) -> None:
    """Show a refused job in the quarantine."""
    (spool.quarantine / case / folder.name).mkdir(parents=True)


def test_an_empty_spool_is_idle(spool: ServiceSpool) -> None:
    """Nothing waits and nothing is in flight."""
    seen = SpoolScanner(spool).look(NOW)
    assert seen.is_idle
    assert seen == SpoolStatus(at=NOW)


def test_a_spool_that_is_not_there_yet_is_idle(tmp_path: Path) -> None:
    """Whoever looks before the first start gets no error."""
    assert SpoolScanner(ServiceSpool.under(tmp_path / "none")).look(NOW).is_idle


def test_a_dropped_case_a_copy_in_progress_and_a_zip_file_are_waiting(spool: ServiceSpool) -> None:
    """Hidden names, loose files, links and folders without a file are not."""
    for name in ("a", ".hidden", "copy.part"):
        drop(spool, name)
    (spool.inbox / "case.zip").write_bytes(b"PK")
    (spool.inbox / "loose.dcm").write_bytes(b"x")
    (spool.inbox / "empty" / "deeper").mkdir(parents=True)
    (spool.inbox / "link").symlink_to(spool.inbox / "a")
    assert SpoolScanner(spool).look(NOW).waiting == ("a", "case.zip", "copy.part")


def test_a_case_of_ignored_files_only_is_not_waiting(spool: ServiceSpool) -> None:
    """What a file manager leaves is no case."""
    drop(spool, "a")
    (spool.inbox / "b").mkdir()
    (spool.inbox / "b" / "Thumbs.db").touch()
    assert SpoolScanner(spool, ignore=("Thumbs.db",)).look(NOW).waiting == ("a",)


def test_the_oldest_waiting_case_tells_the_age(spool: ServiceSpool) -> None:
    """Counted from the last change of its folder, whatever times its files have."""
    since = drop(spool, "a").stat().st_ctime
    assert SpoolScanner(spool).look(since + 300).oldest_waiting_seconds == pytest.approx(300)
    assert SpoolScanner(spool).look(since - 300).oldest_waiting_seconds == 0


@pytest.mark.parametrize("state", ["prepared", "published"])
def test_a_job_between_begin_and_end_is_in_flight(spool: ServiceSpool, state: str) -> None:
    """Until its report says that it is done."""
    tell(job(spool, "a"), state)
    seen = SpoolScanner(spool).look(NOW)
    assert (seen.waiting, in_flight(seen)) == ((), ("a",))


def test_an_attempt_that_was_handed_back_is_queued_again(
    spool: ServiceSpool,
) -> None:
    """The log of attempts tells before there is any report."""
    folder = job(spool, "a")
    take(spool, "a").write_job(requested(folder.name, "a"))
    begin(folder)
    assert [one.is_queued for one in SpoolScanner(spool).look(NOW).in_flight] == [False]
    begin(folder, "handed back")
    assert [one.is_queued for one in SpoolScanner(spool).look(NOW).in_flight] == [True]


def test_an_attempt_that_began_before_the_report_is_over_and_a_later_one_is_not(
    spool: ServiceSpool,
) -> None:
    """The same job can be worked on a second time."""
    folder = job(spool, "a")
    begin(folder, ago=120)
    tell(folder, "done", ago=60)
    assert SpoolScanner(spool).look(NOW).is_idle
    begin(folder, ago=30)
    assert in_flight(SpoolScanner(spool).look(NOW)) == ("a",)


def test_originals_that_are_kept_are_not_waiting_as_long_as_the_watcher_knows_them(
    spool: ServiceSpool,
) -> None:
    """Status reads no content; the watcher names the entries that it has taken as they are."""
    drop(spool, "a")
    (spool.inbox / "b.zip").write_bytes(b"PK")
    scanner = SpoolScanner(spool)
    assert scanner.look(NOW).waiting == ("a", "b.zip")
    assert scanner.look(NOW, ("a", "b.zip")).is_idle
    assert scanner.look(NOW, ("a",)).waiting == ("b.zip",)


def test_a_copy_of_a_kept_case_is_in_flight_and_the_case_does_not_wait(
    spool: ServiceSpool,
) -> None:
    """Before the watcher has told of it."""
    drop(spool, "a")
    take(spool, "a", left_in_inbox=True)
    seen = SpoolScanner(spool).look(NOW)
    assert (seen.waiting, in_flight(seen)) == ((), ("a",))


def test_only_the_newest_job_counts(spool: ServiceSpool) -> None:
    """A case that was refused and then released is not refused."""
    older, newer = job(spool, "a", 0), job(spool, "a", 1)
    tell(older, "refused", number=0)
    quarantine(spool, "a", older)
    assert [one.case for one in SpoolScanner(spool).look(NOW).refused] == ["a"]
    tell(newer, "done", number=1)
    assert SpoolScanner(spool).look(NOW).refused == ()


def test_refused_cases_come_with_code_and_reason_newest_first(spool: ServiceSpool) -> None:
    """One that is no longer in the quarantine was dealt with."""
    for case, ago in (("a", 500.0), ("b", 100.0), ("gone", 50.0)):
        tell(job(spool, case), "refused", ago=ago)
        if case != "gone":
            quarantine(spool, case, job(spool, case))
    seen = SpoolScanner(spool).look(NOW)
    assert [(one.case, one.code, one.reason) for one in seen.refused] == [
        ("b", "FaceNotFound", "no face"),
        ("a", "FaceNotFound", "no face"),
    ]
    assert seen.refused_codes == {"FaceNotFound": 2}


def test_a_repetition_that_was_refused_makes_the_case_refused(spool: ServiceSpool) -> None:
    """Its report lies beside the one of what is published."""
    folder = job(spool, "a")
    tell(folder, "done")
    tell(folder, "refused", name="repeat.json")
    quarantine(spool, "a", folder)
    assert [one.code for one in SpoolScanner(spool).look(NOW).refused] == ["FaceNotFound"]


def test_a_taken_case_is_in_flight_until_its_job_has_ended(spool: ServiceSpool) -> None:
    """First it is examined, then its job waits; an ended job is not in flight."""
    taken = take(spool, "a")
    scanner = SpoolScanner(spool)
    (one,) = scanner.look(NOW).in_flight
    assert (one.case, one.is_prepared, one.is_queued) == ("a", True, False)
    assert "in flight       1: 1 being prepared" in spool_lines(scanner.look(NOW))
    folder = job(spool, "a")
    taken.write_job(requested(folder.name, "a"))
    (one,) = scanner.look(NOW).in_flight
    assert (one.job_id, one.is_prepared, one.is_queued) == (folder.name, False, True)
    assert "in flight       1: 1 queued" in spool_lines(scanner.look(NOW))
    begin(folder)
    (one,) = scanner.look(NOW).in_flight
    assert (one.attempt, one.is_queued) == (1, False)
    tell(folder, "refused", hour=9)
    assert scanner.look(NOW).is_idle


def test_a_job_that_is_submitted_again_is_in_flight_although_it_had_ended(
    spool: ServiceSpool,
) -> None:
    """The same files were dropped again after the output was collected."""
    folder = job(spool, "a")
    tell(folder, "done")
    taken = take(spool, "a")
    taken.write_job(requested(folder.name, "a"))
    assert in_flight(SpoolScanner(spool).look(NOW)) == ("a",)


def test_a_later_drop_waits_while_the_earlier_one_is_in_flight(spool: ServiceSpool) -> None:
    """In the inbox first, then taken: both are counted."""
    take(spool, "a").write_job(requested(job(spool, "a").name, "a"))
    drop(spool, "a")
    seen = SpoolScanner(spool).look(NOW)
    assert (seen.waiting, in_flight(seen)) == (("a",), ("a",))
    take(spool, "a")
    shutil.rmtree(spool.inbox / "a")
    assert in_flight(SpoolScanner(spool).look(NOW)) == ("a", "a")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 50_000])
def test_a_taken_folder_with_a_damaged_record_stops_no_other(
    spool: ServiceSpool, content: bytes
) -> None:
    """The cases beside it are counted, and it is named."""
    damaged = take(spool, "a")
    (damaged.folder / "drop.json").write_bytes(content)
    take(spool, "b")
    seen = SpoolScanner(spool).look(NOW)
    assert in_flight(seen) == ("b",)
    assert [(one.place, one.name) for one in seen.skipped] == [("taken", damaged.taken_id)]


def test_a_refused_case_is_in_flight_once_its_replay_has_its_files(spool: ServiceSpool) -> None:
    """Before that the case is refused as before."""
    older, newer = job(spool, "a", 0), job(spool, "a", 1)
    tell(older, "refused")
    quarantine(spool, "a", older)
    write_order(spool, ReplayRequest(job=requested(newer.name, "a")))
    seen = SpoolScanner(spool).look(NOW)
    assert (len(seen.refused), seen.in_flight) == (1, ())
    take(spool, "a")
    seen = SpoolScanner(spool).look(NOW)
    assert (seen.refused, in_flight(seen)) == ((), ("a",))


def test_the_rate_counts_what_ended_within_the_last_hour(spool: ServiceSpool) -> None:
    """By the times of the reports."""
    for number, ago in enumerate((10.0, 3000.0, 4000.0)):
        tell(job(spool, "a", number), "done", number=number, ago=ago)
    assert SpoolScanner(spool).look(NOW).ended_last_hour == 2


def test_nested_cases_are_found_at_their_depth(spool: ServiceSpool) -> None:
    """With cases two levels below the inbox, also when a case is named like a job."""
    name = f"site/{job(spool, 'x').name}"
    shutil.rmtree(spool.reports / "x")
    drop(spool, "site/b")
    tell(job(spool, name), "done")
    assert SpoolScanner(spool, case_depth=2).look(NOW).waiting == ("site/b",)
    assert [record.case for record in JobReader(spool.reports).read()] == [name]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"state": "done"}', b"\xff"])
def test_a_report_that_cannot_be_read_proves_nothing(spool: ServiceSpool, content: bytes) -> None:
    """The case waits as if there were none."""
    drop(spool, "a")
    (job(spool, "a") / "report.json").write_bytes(content)
    assert SpoolScanner(spool).look(NOW).waiting == ("a",)


@pytest.mark.parametrize(
    "vanishing",
    [
        lambda spool: spool.inbox / "a",
        lambda spool: next(spool.taken.iterdir()),
        lambda spool: spool.taken,
        lambda spool: spool.reports / "a",
        lambda spool: spool.reports,
    ],
)
def test_what_vanishes_while_somebody_looks_is_no_error(
    spool: ServiceSpool, vanishing: Callable[[ServiceSpool], Path]
) -> None:
    """Between two looks here; the reader remembers what is gone."""
    drop(spool, "a")
    take(spool, "a")
    tell(job(spool, "a"), "done")
    scanner = SpoolScanner(spool)
    scanner.look(NOW)
    shutil.rmtree(vanishing(spool))
    scanner.look(NOW + 60)


def test_the_lines_for_a_person_name_what_is_refused_and_why(spool: ServiceSpool) -> None:
    """The newest ones by name, the rest by number."""
    for number in range(3):
        case = f"case-{number}"
        tell(job(spool, case), "refused", ago=100.0 - number)
        quarantine(spool, case, job(spool, case))
    drop(spool, "a")
    seen = SpoolScanner(spool).look(NOW)
    text = "\n".join([*spool_lines(seen), *refused_lines(seen, limit=2)])
    assert "waiting         1, the oldest for " in text
    assert "refused         3: 3 FaceNotFound" in text
    assert "  FaceNotFound: no face\n    see " in text
    assert text.index("  case-2  ") < text.index("  case-1  ")
    assert "case-0" not in text
    assert "and 1 more: --limit 3 shows all" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_time_spans_are_written_in_two_units(seconds: float, text: str) -> None:
    """As people say them."""
    assert duration(seconds) == text


def test_the_plain_values_are_json(spool: ServiceSpool) -> None:
    """For whoever reads `--json`."""
    drop(spool, "a")
    assert json.loads(json.dumps(SpoolScanner(spool).look(NOW).as_plain()))["waiting"] == 1
