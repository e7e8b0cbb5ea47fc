"""The journaled commit: a staged case becomes visible in the outbox at once, or not at all (DESIGN section 7).

    staged, fsynced → marked unfinished → report "prepared" → case locked, nothing newer there →
    earlier output to the archive → rename → "published" → "done" → mark removed

A job that is met again goes on from the state that its report records; every step can be repeated.
The mark lies in the staging folder, which outlives the process until the job is done, so that any
later process finds what is to be finished.
"""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.errors import (
    ConfigurationError,
    PermanentError,
    TransientError,
    VerificationFailed,
)
from ctdeface_shared.jobs.reports import REPORT
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import UNFINISHED, case_lock_name, is_abandoned, locked, remove
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path
from ctdeface_worker.publishing.journal import (
    find_report,
    is_over,
    published_reports,
    record,
    report_folder,
)
from ctdeface_worker.publishing.outbox import OutputRules, apply_modes, holds, make_parents
from ctdeface_worker.report.model import CaseReport, State

__all__ = [
    "REPORT",
    "OutputRules",
    "find_report",
    "is_superseded",
    "publish",
    "record",
    "recover",
    "report_folder",
    "resume",
]

Step = Callable[[str], None]

_log = logs.logger(__name__)


def publish(
    spool: Spool,
    report: CaseReport,
    staged: Path,
    rules: OutputRules,
    *,
    step: Step = lambda _: None,
) -> CaseReport:
    """Publish a staged case and return its final report; `step` hears the name of each step that is done.

    Args:
        spool: where everything lies.
        report: state `prepared`.
        staged: a folder in `spool.staging` whose sub-folder `dicom` becomes the released case.
        rules: modes and group of the output.
        step: told after each step (tests stop there).

    Returns:
        The report with state `done`, or `superseded` when a newer job of the case is published
        already.

    Raises:
        VerificationFailed: the staged files are no longer what was proven.
        StorageUnavailable: storage failed, or another process holds the case; the job can be met
            again.
    """
    report = replace(report, staged=staged.name)
    with atomic.storage_errors():
        apply_modes(staged / "dicom", rules)
        atomic.sync_tree(staged)
        step("staged")
        mark = {"outbox": spool.outbox.stat().st_ino, "report": json.loads(report.to_json())}
        atomic.write_file(staged / UNFINISHED, json.dumps(mark).encode())
        step("marked")
        record(spool, report, stale_seconds=rules.stale_seconds)
        step("prepared")
        return _commit(spool, report, rules, step)


def resume(
    spool: Spool, report: CaseReport, rules: OutputRules, *, step: Step = lambda _: None
) -> CaseReport | None:
    """Go on with a job whose report is there; None when it must be worked on again.

    Raises:
        VerificationFailed: the staged files are no longer what was proven.
        StorageUnavailable: storage failed, or another process holds the case; the job can be met
            again.
    """
    with atomic.storage_errors():
        if report.state is State.SUPERSEDED:
            return report if is_superseded(spool, report) else None
        shown = holds(case_path(spool.outbox, report.case), report)
        if report.state is State.PREPARED and holds(
            spool.staging / report.staged / "dicom", report
        ):
            final = _commit(spool, report, rules, step)
        elif report.state is State.PUBLISHED or (
            report.state is State.PREPARED and (shown or _was_renamed(spool, report))
        ):
            final = _finish(
                spool, report, rules, step
            )  # killed before everything was recorded; the output may be taken away already
        elif report.state is State.DONE and shown:
            return report
        else:
            return None
        if report.staged:
            remove(spool.staging / report.staged)
        return final


def recover(spool: Spool, rules: OutputRules) -> tuple[CaseReport, ...]:
    """Finish what dead processes had prepared in staging; to be called before staging is swept.

    Returns:
        The reports of the jobs that were brought to their end. One that cannot be finished now
        stays for the next call.

    Raises:
        ConfigurationError: the output cannot get its group.
    """
    finished = []
    for folder in sorted(spool.staging.iterdir()):
        if not (folder / UNFINISHED).exists() or not is_abandoned(folder, rules.stale_seconds):
            continue
        try:
            report = _marked(spool, folder)
            if report is not None:
                over = is_over(spool, report)
                final = None if over else resume(spool, report, rules)
                finished.extend([final] if final else [])
                (folder / UNFINISHED).unlink(missing_ok=True)
                if over:
                    remove(folder)
        except (ValueError, KeyError, TypeError, PermanentError):
            (folder / UNFINISHED).unlink(
                missing_ok=True
            )  # not what was proven: the sweep removes it, and the job is worked on again
        except TransientError:
            continue
        except OSError as error:  # of this case only: the others must not wait for it
            _log.error(
                "case_not_recovered",
                code=errno.errorcode.get(error.errno or 0, type(error).__name__),
            )
    return tuple(finished)


def is_superseded(spool: Spool, report: CaseReport) -> bool:
    """Whether a newer job of the same case has been published, also when somebody has taken its output away since."""
    return any(
        (other.created_at, other.generation) > (report.created_at, report.generation)
        for other in published_reports(spool, report.case)
        if other.job_id != report.job_id
    )


def _was_renamed(spool: Spool, report: CaseReport) -> bool:
    """Whether a marked case has left its staging folder, which it does only into the outbox."""
    staged = spool.staging / report.staged
    return (
        bool(report.staged) and (staged / UNFINISHED).exists() and not (staged / "dicom").exists()
    )


def _shown(spool: Spool, report: CaseReport) -> CaseReport | None:
    """Return the report of this very submission of the job if it is published already; a repetition has a time of its own."""
    there = find_report(spool, report.case, report.job_id)
    return (
        there
        if there is not None and there.is_published and there.created_at == report.created_at
        else None
    )


def _commit(spool: Spool, report: CaseReport, rules: OutputRules, step: Step) -> CaseReport:
    try:
        with locked(spool.locks, case_lock_name(report.case), stale_seconds=rules.stale_seconds):
            return _commit_locked(spool, report, rules, step)
    except (PermanentError, ConfigurationError):
        _forget(spool, report)
        raise


def _commit_locked(spool: Spool, report: CaseReport, rules: OutputRules, step: Step) -> CaseReport:
    target = case_path(spool.outbox, report.case)
    staged = spool.staging / report.staged / "dicom"
    if is_superseded(spool, report):
        superseded = replace(report, state=State.SUPERSEDED, staged="")
        record(spool, superseded, stale_seconds=rules.stale_seconds)
        _forget(spool, report)
        return superseded
    shown = _shown(spool, report)
    if (
        shown is not None
    ):  # another process met the same job and was faster: what it released is what is told
        final = shown if shown.state is State.DONE else _finish(spool, shown, rules, step)
        _forget(spool, report)
        return final
    proven = holds(staged, report)
    if not proven and holds(target, report):
        return _finish(spool, report, rules, step)
    if not proven:
        raise VerificationFailed("the staged files are not the ones that were proven")
    make_parents(target.parent, rules)
    if target.exists():
        _set_aside(spool, report.case, target)
        step("set aside")
    staged.rename(target)
    atomic.sync_folder(target.parent)
    atomic.sync_folder(staged.parent)
    step("renamed")
    return _finish(spool, report, rules, step)


def _finish(spool: Spool, report: CaseReport, rules: OutputRules, step: Step) -> CaseReport:
    published = report.at(State.PUBLISHED)
    record(spool, published, stale_seconds=rules.stale_seconds)
    step("published")
    left = rules.before_done(published)
    step("before done")
    done = replace(report, state=State.DONE, staged="", originals_left=bool(left))
    record(spool, done, stale_seconds=rules.stale_seconds)
    step("done")
    _forget(spool, report)
    return done


def _set_aside(spool: Spool, case: str, target: Path) -> None:
    """Move an earlier output to the archive under its job's name; one that no report explains keeps its pixels just the same."""
    earlier = next(
        (other.job_id for other in published_reports(spool, case) if holds(target, other)),
        "unknown",
    )
    folder = case_path(spool.archive / "outputs", case)
    atomic.make_folder(folder, mode=PRIVATE)
    place = folder / earlier
    number = 1
    while place.exists():
        number += 1
        place = folder / f"{earlier}-{number}"
    target.rename(place)
    atomic.sync_folder(folder)
    atomic.sync_folder(target.parent)


def _marked(spool: Spool, folder: Path) -> CaseReport | None:
    """Return the report in the mark of a staging folder; None when it belongs to another outbox."""
    mark = json.loads((folder / UNFINISHED).read_bytes())
    return (
        CaseReport.from_plain(mark["report"])
        if mark["outbox"] == spool.outbox.stat().st_ino
        else None
    )


def _forget(spool: Spool, report: CaseReport) -> None:
    """Take the mark off: nothing in the staging folder is wanted any more."""
    if report.staged:
        (spool.staging / report.staged / UNFINISHED).unlink(missing_ok=True)
