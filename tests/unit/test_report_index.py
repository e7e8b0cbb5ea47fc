"""The index of reports: one row per job, kept up to date without reading all reports."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.storage.spool import Spool, case_path
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult, SeriesResult
from ctdeface_worker.publishing.journal import record
from ctdeface_worker.report import index
from ctdeface_worker.report.index import INDEX, rebuild_index, update_index
from ctdeface_worker.report.model import CaseReport, State, describe

STALE = 60.0
MANIFEST = Manifest(files=2, bytes=9, digest="d" * 64)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Return a batch's folders, made."""
    made = Spool.beside(tmp_path / "out", tmp_path / "state")
    made.prepare(outbox_mode=0o750)
    return made


def a_file(name: str, fate: Fate, series: str) -> FileResult:
    """Return one file with its fate."""
    output = "b" * 64 if fate is Fate.RELEASED else ""
    return FileResult(
        file=name, size=1, sha256="a" * 64, fate=fate, series=series, output_sha256=output
    )


def released(case: str, job: str = "job", *, failed: bool = False) -> CaseReport:
    """Return the report of a released case, in part if a series failed."""
    series = [SeriesResult(series="1", fate=Fate.RELEASED, slices=1)]
    files = [a_file("1.dcm", Fate.RELEASED, "1")]
    if failed:
        series.append(SeriesResult(series="2", fate=Fate.FAILED, code="MissingSlices", slices=1))
        files.append(a_file("2.dcm", Fate.FAILED, "2"))
    result = CaseResult(released=True, series=tuple(series), files=tuple(files))
    return describe(job, case, MANIFEST, DefaceOptions(), result).at(State.DONE)


def refused(case: str, job: str = "job") -> CaseReport:
    """Return the report of a refused case."""
    result = CaseResult(released=False, code="FaceNotFound", reason="no skull is in view")
    return describe(job, case, MANIFEST, DefaceOptions(), result)


def ended(spool: Spool, report: CaseReport) -> None:
    """Record the report of a case and add it to the index."""
    record(spool, report)
    update_index(spool, report, stale_seconds=STALE)


def rows(spool: Spool) -> list[str]:
    """Return the text of each row, cells separated by bars."""
    page = (spool.reports / INDEX).read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("<tr data-")]
    return [re.sub(r"<[^>]*>", "", line.replace("</td><td", "|<td")) for line in lines]


def test_each_job_has_a_row_with_outcome_files_and_what_to_do(spool: Spool) -> None:
    """The newest first."""
    for number, report in enumerate(
        (released("whole"), released("part", "p", failed=True), refused("no", "r"))
    ):
        ended(spool, replace(report, created_at=f"2026-01-0{number + 1}T10:00:00.000+00:00"))
    assert [row.split("|")[:5] for row in rows(spool)] == [
        ["2026-01-03 10:00", "no", "refused", "0 of 2", "FaceNotFound"],
        ["2026-01-02 10:00", "part", "released in part", "1 of 2", "MissingSlices"],
        ["2026-01-01 10:00", "whole", "released", "1 of 1", ""],
    ]
    assert "No action is needed" in rows(spool)[0]


def test_a_row_links_to_its_report(spool: Spool) -> None:
    """Relative, so that the folder can be moved; odd names are quoted."""
    ended(spool, released("a b/ü#?\udcfc"))
    page = (spool.reports / INDEX).read_text(encoding="utf-8")
    (link,) = re.findall(r'href="([^"]*)"', page)
    assert link == "a%20b/%C3%BC%23%3F%FC/job/report.html"


def test_text_of_the_case_is_escaped_and_stays_on_one_line(spool: Spool) -> None:
    """A line break in a name would break the table in two."""
    ended(spool, released("<script>\n<tr data-job"))
    page = (spool.reports / INDEX).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert len(rows(spool)) == 1


def test_a_job_that_ends_again_keeps_one_row(spool: Spool) -> None:
    """A refused job that is released later."""
    ended(spool, refused("case"))
    ended(spool, released("case"))
    assert [row.split("|")[2] for row in rows(spool)] == ["released"]


def test_a_refused_repetition_has_a_row_until_the_job_is_published_again(spool: Spool) -> None:
    """The published output stays, and so does its row."""
    ended(spool, released("case"))
    ended(spool, refused("case"))
    assert sorted(row.split("|")[2] for row in rows(spool)) == ["refused", "released"]
    ended(spool, replace(released("case"), created_at="2030-01-01T00:00:00.000+00:00"))
    assert [row.split("|")[2] for row in rows(spool)] == ["released"]


def test_a_deleted_index_is_rebuilt_from_the_reports(spool: Spool) -> None:
    """Damaged reports are left out."""
    ended(spool, released("one"))
    ended(spool, refused("two", "other"))
    before = rows(spool)
    broken = case_path(spool.reports, "broken") / "job"
    broken.mkdir(parents=True)
    (broken / "report.json").write_text("{")
    (spool.reports / INDEX).unlink()
    rebuild_index(spool.reports)
    assert rows(spool) == before


def test_an_update_reads_no_other_report(spool: Spool) -> None:
    """Its cost does not grow with the jobs: rows of others are taken over as they are."""
    ended(spool, released("one"))
    (case_path(spool.reports, "one") / "job" / "report.json").unlink()
    ended(spool, refused("two", "other"))
    assert sorted(row.split("|")[1] for row in rows(spool)) == ["one", "two"]


def test_the_page_is_limited_to_the_newest_jobs(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older ones fall off the end."""
    monkeypatch.setattr(index, "MOST_ROWS", 3)
    for number in range(5):
        created = f"2026-01-0{number + 1}T10:00:00.000+00:00"
        ended(spool, replace(released(f"case-{number}", f"job-{number}"), created_at=created))
    assert [row.split("|")[1] for row in rows(spool)] == ["case-4", "case-3", "case-2"]


def test_only_the_owner_can_read_the_page(spool: Spool) -> None:
    """Case names may name a patient."""
    ended(spool, released("case"))
    assert (spool.reports / INDEX).stat().st_mode & 0o777 == 0o600


def test_workers_that_end_at_the_same_time_lose_no_row(spool: Spool) -> None:
    """The page is read and written under a lock."""
    threads = [
        threading.Thread(target=ended, args=(spool, released(f"case-{number}", f"job-{number}")))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(spool)) == 8
