"""The journaled commit: a staged case becomes visible in the outbox at once, or not at all (DESIGN section 7).

    staged, fsynced → report "prepared" → case locked, nothing newer there → earlier output to the archive → rename → "published" → "done"

A job that is met again goes on from the state that its report records; every step can be repeated.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from ctdeface_shared import durable
from ctdeface_shared.errors import ConfigurationError, VerificationFailed
from ctdeface_shared.spool import PRIVATE, Spool, case_path, locked
from ctdeface_worker.report.html import render
from ctdeface_worker.report.model import CaseReport, State

REPORT = "report.json"
_VISIBLE = frozenset({State.PUBLISHED, State.DONE})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRules:
    """How released cases lie on the disk.

    Attributes:
        folder_mode: of released folders.
        file_mode: of released files.
        group: owning group by name, None for the process's own.
        stale_seconds: after which a lock that nobody touched counts as abandoned.
        before_done: what must happen between the visible output and the end of the job, such as putting the originals away; repeatable.
    """

    folder_mode: int = 0o750
    file_mode: int = 0o640
    group: str | None = None
    stale_seconds: float = 4000.0
    before_done: Callable[[CaseReport], None] = lambda _: None


def report_folder(spool: Spool, report: CaseReport) -> Path:
    """Where the report of a job lies."""
    return case_path(spool.reports, report.case) / report.job_id


def record(spool: Spool, report: CaseReport) -> None:
    """Write report.json, the journal, and report.html beside it; both replaced at once."""
    folder = report_folder(spool, report)
    durable.make_folder(folder, mode=PRIVATE)
    durable.write_file(folder / "report.html", render(report).encode("utf-8", "surrogatepass"))
    durable.write_file(folder / REPORT, report.to_json())


def publish(
    spool: Spool, report: CaseReport, staged: Path, rules: OutputRules, *, step: Callable[[str], None] = lambda _: None
) -> CaseReport:
    """Publish a staged case and return its final report; `step` hears the name of each step that is done.

    Args:
        spool: where everything lies.
        report: state `prepared`.
        staged: a folder in `spool.staging` whose sub-folder `dicom` becomes the released case.
        rules: modes and group of the output.
        step: told after each step (tests stop there).

    Raises:
        VerificationFailed: the staged files are no longer what was proven.
        OSError: storage failed; the job can be met again.
    """
    report = replace(report, staged=staged.name)
    _dress(staged / "dicom", rules)
    durable.sync_tree(staged)
    step("staged")
    record(spool, report)
    step("prepared")
    return _commit(spool, report, rules, step)


def resume(spool: Spool, report: CaseReport, rules: OutputRules, *, step: Callable[[str], None] = lambda _: None) -> CaseReport | None:
    """Go on with a job whose report is there; None when it must be worked on again."""
    if report.state in _VISIBLE and _holds(case_path(spool.outbox, report.case), report):
        return report if report.state is State.DONE else _finish(spool, report, rules, step)
    if report.state is not State.PREPARED:
        return None
    if _holds(case_path(spool.outbox, report.case), report):  # renamed, but killed before that was recorded
        return _finish(spool, report, rules, step)
    if _holds(spool.staging / report.staged / "dicom", report):
        return _commit(spool, report, rules, step)
    return None


def find_report(spool: Spool, case: str, job_id: str) -> CaseReport | None:
    """Return the report of a job, if there is a readable one."""
    return _read(case_path(spool.reports, case) / job_id / REPORT)


def is_superseded(spool: Spool, report: CaseReport) -> bool:
    """Whether the outbox already shows a newer job of the same case."""
    return any(
        (other.generation, other.created_at) > (report.generation, report.created_at) and _holds(case_path(spool.outbox, other.case), other)
        for other in _visible_reports(spool, report.case)
        if other.job_id != report.job_id
    )


def _commit(spool: Spool, report: CaseReport, rules: OutputRules, step: Callable[[str], None]) -> CaseReport:
    target = case_path(spool.outbox, report.case)
    lock = sha256(report.case.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    with locked(spool.locks, lock, stale_seconds=rules.stale_seconds):
        if is_superseded(spool, report):
            superseded = replace(report, state=State.DONE, staged="")
            record(spool, superseded)
            return superseded
        staged = spool.staging / report.staged / "dicom"
        if not _holds(staged, report):
            message = "the staged files are not the ones that were proven"
            raise VerificationFailed(message)
        durable.make_folder(target.parent, mode=rules.folder_mode)
        if target.exists():
            _set_aside(spool, report.case, target)
            step("set aside")
        staged.rename(target)
        durable.sync_folder(target.parent)
        durable.sync_folder(staged.parent)
        step("renamed")
        return _finish(spool, report, rules, step)


def _finish(spool: Spool, report: CaseReport, rules: OutputRules, step: Callable[[str], None]) -> CaseReport:
    published = replace(report, state=State.PUBLISHED, staged="")
    record(spool, published)
    step("published")
    rules.before_done(published)
    done = published.at(State.DONE)
    record(spool, done)
    return done


def _set_aside(spool: Spool, case: str, target: Path) -> None:
    """Move an earlier output to the archive under its job's name; one that no report explains keeps its pixels just the same."""
    earlier = next((other.job_id for other in _visible_reports(spool, case) if _holds(target, other)), "unknown")
    folder = case_path(spool.archive / "outputs", case)
    durable.make_folder(folder, mode=PRIVATE)
    place = folder / earlier
    number = 1
    while place.exists():
        number += 1
        place = folder / f"{earlier}-{number}"
    target.rename(place)
    durable.sync_folder(folder)


def _visible_reports(spool: Spool, case: str) -> Iterator[CaseReport]:
    for path in case_path(spool.reports, case).glob(f"*/{REPORT}"):
        report = _read(path)
        if report is not None and report.state in _VISIBLE and report.outputs:
            yield report


def _read(path: Path) -> CaseReport | None:
    try:
        return CaseReport.from_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _holds(folder: Path, report: CaseReport) -> bool:
    """Whether a folder holds exactly the released files of a report."""
    outputs = report.outputs
    if not outputs or not folder.is_dir():
        return False
    present = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return present.keys() == outputs.keys() and all(_digest(path) == outputs[name] for name, path in present.items())


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _dress(folder: Path, rules: OutputRules) -> None:
    """Give the staged case the modes and group of the outbox."""
    for parent, _, names in os.walk(folder):
        _own(Path(parent), rules.folder_mode, rules.group)
        for name in names:
            _own(Path(parent) / name, rules.file_mode, rules.group)


def _own(path: Path, mode: int, group: str | None) -> None:
    path.chmod(mode)
    if group is not None:
        try:
            shutil.chown(path, group=group)
        except (LookupError, PermissionError) as error:
            message = f"outbox_group {group} cannot be given to files: {error}"
            raise ConfigurationError(message) from error
