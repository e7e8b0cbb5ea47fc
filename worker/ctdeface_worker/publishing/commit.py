"""Journaled publication: a staged case appears in the outbox atomically.

    staged, fsynced → marked unfinished → report "prepared" → case locked, nothing newer there →
    earlier output to the archive → rename → "published" → "done" → mark removed

A job that is delivered again goes on from the state in its report; every step can be repeated. The
mark is a file in the staging folder. A marked folder outlives its process until the job is done, so
that any later process finds and finishes it.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.broker.settlement import code_of
from ctdeface_shared.errors import (
    ConfigurationError,
    PermanentError,
    StorageUnavailable,
    VerificationFailed,
)
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import LARGEST_REPORT_BYTES, parse_json, read_bounded
from ctdeface_shared.storage.locks import UNFINISHED, case_lock_name, is_abandoned, locked, remove
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path
from ctdeface_worker.publishing.journal import (
    is_over,
    published_already,
    published_reports,
    record,
)
from ctdeface_worker.publishing.outbox import OutputRules, apply_modes, holds, make_parents
from ctdeface_worker.report.model import CaseReport, State

Step = Callable[[str], None]
"""Called with the name of each finished step; tests stop there."""


def no_step(_: str) -> None:
    """Ignore a finished step."""


_log = logs.logger(__name__)


def publish(
    spool: Spool,
    report: CaseReport,
    staged: Path,
    rules: OutputRules,
    *,
    step: Step = no_step,
) -> CaseReport:
    """Publish a staged case and return its final report.

    Args:
        spool: the folders of the service or batch.
        report: state `prepared`.
        staged: a folder in `spool.staging` whose sub-folder `dicom` becomes the released case.
        rules: modes and group of the output.
        step: called after each step.

    Returns:
        The report with state `done`, or `superseded` when a newer job of the case is published
        already.

    Raises:
        VerificationFailed: the staged files are not those that passed the gate.
        StorageUnavailable: storage failed, or another process holds the case; the job can be
            delivered again.
    """
    report = replace(report, staged=staged.name)
    with atomic.storage_errors():
        apply_modes(staged / "dicom", rules)
        atomic.sync_tree(staged)
        step("staged")
        mark = {"outbox": spool.outbox.stat().st_ino, "report": json.loads(report.to_json())}
        atomic.write_file(staged / UNFINISHED, json.dumps(mark).encode())
        step("marked")
        record(spool, report)
        step("prepared")
        return _commit(spool, report, rules, step)


def resume(
    spool: Spool, report: CaseReport, rules: OutputRules, *, step: Step = no_step
) -> CaseReport | None:
    """Finish a job that has a report.

    Returns None when the job needs a new attempt.

    Raises:
        VerificationFailed: the staged files are not those that passed the gate.
        StorageUnavailable: storage failed, or another process holds the case; the job can be
            delivered again.
    """
    with atomic.storage_errors():
        if report.state is State.SUPERSEDED:
            return report if is_superseded(spool, report) else None
        visible = holds(case_path(spool.outbox, report.case), report)
        if report.state is State.DONE:
            return report if visible else None
        if report.state is State.PREPARED and _is_staged(spool, report):
            final = _commit(spool, report, rules, step)
        elif report.state is State.PUBLISHED or (
            report.state is State.PREPARED and (visible or _was_renamed(spool, report))
        ):
            # Killed before everything was recorded. The output may have been collected already.
            final = _finish(spool, report, rules, step)
        else:
            return None
        if report.staged:
            remove(spool.staging / report.staged)
        return final


def recover(spool: Spool, rules: OutputRules) -> tuple[CaseReport, ...]:
    """Finish what dead processes had prepared; call it before sweeping staging.

    Returns:
        The reports of the finished jobs. A job that cannot be finished now stays for the next call.

    Raises:
        ConfigurationError: the output cannot get its group.
    """
    finished = []
    for folder in sorted(spool.staging.iterdir()):
        final = boundary(partial(_recover_if_abandoned, spool, folder, rules))
        if isinstance(final, ConfigurationError):
            raise final
        if isinstance(final, Exception):  # this case only; the others must not wait for it
            _log.error("case_not_recovered", code=code_of(final))
        elif final is not None:
            finished.append(final)
    return tuple(finished)


def is_superseded(spool: Spool, report: CaseReport) -> bool:
    """Return whether a newer job of the case was published.

    The newer output counts also when it has been collected since.
    """
    return any(
        (other.created_at, other.generation) > (report.created_at, report.generation)
        for other in published_reports(spool, report.case)
        if other.job_id != report.job_id
    )


def _recover_if_abandoned(spool: Spool, folder: Path, rules: OutputRules) -> CaseReport | None:
    """Finish the job of a staging folder whose process has ended.

    Raises:
        ConfigurationError: the output cannot get its group.
        TransientError: it cannot be finished now.
    """
    mark = folder / UNFINISHED
    try:
        if not os.path.lexists(mark) or not is_abandoned(folder, rules.stale_seconds):
            return None
        return _recover_folder(spool, folder, rules)
    except (ValueError, KeyError, TypeError, PermanentError):
        # Not what passed the gate: the sweep removes it, and the job is attempted again.
        _remove_mark(mark)
    except OSError as error:
        raise StorageUnavailable(f"the case cannot be finished: {error.strerror}") from error
    return None


def _remove_mark(mark: Path) -> None:
    """Remove the mark of a staging folder; a folder may have its name."""
    if mark.is_dir() and not mark.is_symlink():
        remove(mark)
    else:
        mark.unlink(missing_ok=True)


def _recover_folder(spool: Spool, folder: Path, rules: OutputRules) -> CaseReport | None:
    """Finish the job of one marked staging folder.

    A job that has ended otherwise is left alone.
    """
    report = _marked(spool, folder)
    if report is None:
        return None
    over = is_over(spool, report)
    final = None if over else resume(spool, report, rules)
    (folder / UNFINISHED).unlink(missing_ok=True)
    if over:
        remove(folder)
    return final


def _is_staged(spool: Spool, report: CaseReport) -> bool:
    """Return whether staging holds exactly the report's files."""
    return holds(spool.staging / report.staged / "dicom", report)


def _was_renamed(spool: Spool, report: CaseReport) -> bool:
    """Return whether a marked case has left staging.

    It can only have gone to the outbox.
    """
    staged = spool.staging / report.staged
    return (
        bool(report.staged) and (staged / UNFINISHED).exists() and not (staged / "dicom").exists()
    )


def _commit(spool: Spool, report: CaseReport, rules: OutputRules, step: Step) -> CaseReport:
    """Rename the staged case into the outbox, under lock."""
    target = case_path(spool.outbox, report.case)
    try:
        with locked(spool.locks, case_lock_name(report.case), stale_seconds=rules.stale_seconds):
            if is_superseded(spool, report):
                return _supersede(spool, report)
            published = published_already(spool, report)
            if published is not None:
                return _follow(spool, report, published, rules, step)
            if not _is_staged(spool, report):
                if holds(target, report):
                    return _finish(spool, report, rules, step)
                raise VerificationFailed("the staged files are not the ones that were proven")
            make_parents(target.parent, rules)
            if target.exists():
                _archive_output(spool, report.case, target)
                step("set aside")
            staged = spool.staging / report.staged / "dicom"
            staged.rename(target)
            atomic.sync_folder(target.parent)
            atomic.sync_folder(staged.parent)
            step("renamed")
            return _finish(spool, report, rules, step)
    except (PermanentError, ConfigurationError):
        _unmark(spool, report)
        raise


def _supersede(spool: Spool, report: CaseReport) -> CaseReport:
    """Record that a newer job of the case is published already."""
    superseded = replace(report, state=State.SUPERSEDED, staged="")
    record(spool, superseded)
    _unmark(spool, report)
    return superseded


def _follow(
    spool: Spool, report: CaseReport, published: CaseReport, rules: OutputRules, step: Step
) -> CaseReport:
    """Finish as the process that published the job first."""
    done = published.state is State.DONE
    final = published if done else _finish(spool, published, rules, step)
    _unmark(spool, report)
    return final


def _finish(spool: Spool, report: CaseReport, rules: OutputRules, step: Step) -> CaseReport:
    """Record the publication, handle the originals and record the end."""
    published = report.at(State.PUBLISHED)
    record(spool, published)
    step("published")
    rules.before_done(published)
    step("before done")
    done = replace(report, state=State.DONE, staged="")
    record(spool, done)
    step("done")
    _unmark(spool, report)
    return done


def _archive_output(spool: Spool, case: str, target: Path) -> None:
    """Move an earlier output to the archive.

    It gets the name of its job.

    An output that matches no report is archived as `unknown`.
    """
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
    """Return the report in a staging folder's mark.

    Returns None if it was staged for another outbox.
    """
    mark = parse_json(read_bounded(folder / UNFINISHED, LARGEST_REPORT_BYTES))
    if mark["outbox"] != spool.outbox.stat().st_ino:
        return None
    return CaseReport.from_plain(mark["report"])


def _unmark(spool: Spool, report: CaseReport) -> None:
    """Remove the mark, so that the staging folder can be swept."""
    if report.staged:
        (spool.staging / report.staged / UNFINISHED).unlink(missing_ok=True)
