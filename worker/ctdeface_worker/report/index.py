"""Static `index.html` of all jobs, beside the reports.

The page is its own cache. Each row is one line with the job and its time as attributes, so adding a
job means reading the page, replacing one line and writing the page atomically. No report is read,
and the page is limited to the newest `MOST_ROWS` jobs: the cost of an update does not grow with the
number of jobs. Only a missing page is rebuilt from report.json files, of which the newest
`MOST_ROWS` are read; delete the page to have it rebuilt. A drop that the watcher refused itself
appears with the next rebuild.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from ctdeface_shared import logs
from ctdeface_shared.console import printable
from ctdeface_shared.jobs.remedies import remedy
from ctdeface_shared.jobs.reports import REPEAT, REPORT
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import (
    LARGEST_REPORT_BYTES,
    LARGEST_STATE_BYTES,
    DamagedFile,
    read_bounded,
)
from ctdeface_shared.storage.locks import lock_name, locked
from ctdeface_shared.storage.spool import Spool, case_path
from ctdeface_shared.storage.tree import walk_tree
from ctdeface_worker.report.model import CaseReport, State

INDEX = "index.html"
MOST_ROWS = 5000
"""Jobs on the page; older ones are found in the folders of their cases."""
_LONGEST_WAIT_SECONDS = 10.0
_ROW = re.compile(r'<tr data-job="(?P<job>[^"]*)" data-time="(?P<time>[^"]*)" data-page="(\w+)">')

_log = logs.logger(__name__)

_HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cases</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #1c2330; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .6rem; }}
th, td {{ border-bottom: 1px solid #dde2ea; }}
th {{ background: #eef1f6; position: sticky; top: 0; }}
.n {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
.refused {{ color: #b3261e; font-weight: 600; }}
.part {{ color: #b26a00; font-weight: 600; }}
.released {{ color: #1a7f4b; }}
</style>
</head>
<body>
<h1>Cases</h1>
<p>The newest job comes first; the page shows up to {MOST_ROWS} jobs.</p>
<table>
<tr><th>Time (UTC)</th><th>Case</th><th>Outcome</th><th>Files released</th>
<th>Code</th><th>What to do</th><th>Job</th></tr>
"""
_FOOT = "</table>\n</body>\n</html>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One line of the table.

    Attributes:
        job: job id, escaped.
        time: UTC, ISO 8601; rows are sorted by it.
        is_repeat: whether it is about a repetition while an earlier output stays published.
        line: the whole line.
    """

    job: str
    time: str
    is_repeat: bool
    line: str


def update_index(spool: Spool, report: CaseReport, *, stale_seconds: float) -> None:
    """Add or replace the row of a job.

    Args:
        spool: whose `reports` folder holds the page.
        report: the job, as recorded.
        stale_seconds: age at which a lock of another machine counts as abandoned.

    Raises:
        StorageUnavailable: other processes held the lock for 10 s.
        OSError: the page cannot be read or written.
    """
    index = spool.reports / INDEX
    with locked(
        spool.locks,
        lock_name(INDEX),
        stale_seconds=stale_seconds,
        wait_seconds=_LONGEST_WAIT_SECONDS,
    ):
        row = _row(spool.reports, report, _page(spool.reports, report))
        rows = [old for old in _known_rows(index) if not _is_replaced(old, row)]
        _write(index, [row, *rows])


def _page(reports: Path, report: CaseReport) -> Path:
    """Return report.html, or repeat.html for a repetition."""
    folder = case_path(reports, report.case) / report.job_id
    repeat = folder / REPEAT
    place = repeat if repeat.exists() and not report.is_published else folder / REPORT
    return place.with_suffix(".html")


def rebuild_index(reports: Path) -> None:
    """Write the page anew from the newest reports.

    Raises:
        OSError: the page cannot be written.
    """
    _write(reports / INDEX, _rebuilt_rows(reports))


def _known_rows(index: Path) -> Iterable[_Row]:
    try:
        text = read_bounded(index, LARGEST_STATE_BYTES).decode()
    except (FileNotFoundError, DamagedFile, UnicodeDecodeError):  # missing or damaged
        return _rebuilt_rows(index.parent)
    return [row for line in text.splitlines() if (row := _parsed(line)) is not None]


def _parsed(line: str) -> _Row | None:
    found = _ROW.match(line)
    if found is None:
        return None
    return _Row(job=found["job"], time=found["time"], is_repeat=found[3] == "repeat", line=line)


def _is_replaced(old: _Row, new: _Row) -> bool:
    """Return whether a row replaces another.

    The publication of a job ends its repetitions; a repetition leaves the row of the publication.
    """
    return old.job == new.job and (old.is_repeat or not new.is_repeat)


def _rebuilt_rows(reports: Path) -> list[_Row]:
    """Return the rows of the newest readable reports."""
    rows = []
    for path in _newest_reports(reports):
        try:
            report = CaseReport.from_json(read_bounded(path, LARGEST_REPORT_BYTES))
            rows.append(_row(reports, report, path.with_suffix(".html")))
        except (OSError, ValueError):
            _log.warning("report_not_in_index")
    return rows


def _newest_reports(reports: Path) -> list[Path]:
    """Return the most recently written reports, at most `MOST_ROWS`."""
    found = []
    for _, entries in walk_tree(reports, _ignore):
        for entry in entries:
            if entry.name in {REPORT, REPEAT}:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, Path(entry.path)))
    return [path for _, path in sorted(found, reverse=True)[:MOST_ROWS]]


def _ignore(_error: OSError) -> None:
    """Leave out a folder that cannot be listed; the status names it."""


def _row(reports: Path, report: CaseReport, page: Path) -> _Row:
    is_repeat = page.stem == Path(REPEAT).stem
    shown = page if page.exists() else page.with_suffix(".json")
    link = quote(os.fsencode(shown.relative_to(reports)))
    style = "part" if report.is_partial else report.outcome
    job = escape(printable(report.job_id))
    time = escape(printable(report.created_at))
    cells = (
        f'<td class="n">{time[:16].replace("T", " ")}</td>',
        f'<td><a href="{link}">{escape(printable(report.case))}</a></td>',
        f'<td class="n {style}">{report.outcome}</td>',
        f'<td class="n">{_files(report)}</td>',
        f"<td>{escape(', '.join(_codes(report)))}</td>",
        f"<td>{escape(_action(report))}</td>",
        f'<td class="n">{job[:8]}</td>',
    )
    kind = "repeat" if is_repeat else "report"
    line = f'<tr data-job="{job}" data-time="{time}" data-page="{kind}">{"".join(cells)}</tr>'
    return _Row(job=job, time=time, is_repeat=is_repeat, line=line)


def _files(report: CaseReport) -> str:
    released = report.result.released_files if report.is_published else 0
    return f"{released} of {len(report.result.files) or report.manifest.files}"


def _codes(report: CaseReport) -> Iterator[str]:
    """Yield the codes of the case or its failed series."""
    if report.state is State.SUPERSEDED:
        yield "Superseded"
    elif report.result.code:
        yield report.result.code
    elif report.is_partial:
        failed = set(report.result.failed_series)
        yield from dict.fromkeys(one.code for one in report.result.series if one.series in failed)


def _action(report: CaseReport) -> str:
    """Return the first sentence of the remedy."""
    text = remedy(next(_codes(report), "")).replace("`", "")
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0]


def _write(index: Path, rows: Iterable[_Row]) -> None:
    newest = sorted(rows, key=lambda row: row.time, reverse=True)[:MOST_ROWS]
    text = _HEAD + "".join(f"{row.line}\n" for row in newest) + _FOOT
    atomic.write_file(index, text.encode("utf-8", "backslashreplace"))
