"""Comparison of reports and outbox with the audit log.

Every ended case needs an entry, and its files and report must be the ones that were entered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ctdeface_shared.audit.entry import CaseEnd, Outcome, digest_of, digest_of_report
from ctdeface_shared.jobs.history import DROP_REFUSALS
from ctdeface_shared.jobs.reports import REPEAT, REPORT, parse_report
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage.bounded import LARGEST_REPORT_BYTES, read_bounded
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_shared.storage.tree import walk_tree

_ENDED = {
    JobState.DONE: frozenset({Outcome.RELEASED}),
    JobState.REFUSED: frozenset({Outcome.QUARANTINED, Outcome.REJECTED}),
    JobState.SUPERSEDED: frozenset({Outcome.SUPERSEDED}),
}
_SHOWN = frozenset({JobState.PUBLISHED, JobState.DONE})
_LONGEST_SHOWN = 200
"""Characters of a path that a problem shows."""
_MOST_NAMED = 10
"""Maximum number of jobs that one note names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedEnd:
    """How a report says that its job ended.

    Attributes:
        case: name of the case.
        job_id: name of the job.
        submitted_at: time of its submission; UTC, ISO 8601.
        state: state of the job.
        code: code of the refusal, or empty.
        outputs: SHA-256 of each released file, by its name in the case.
        digest: digest of the report (`digest_of_report`).
    """

    case: str
    job_id: str
    submitted_at: str
    state: JobState
    code: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    digest: str

    @property
    def submission(self) -> tuple[str, str]:
        """Return job and time, which identify the submission."""
        return (self.job_id, self.submitted_at)


@dataclass(slots=True, kw_only=True)
class CaseFindings:
    """The result of checking reports and outbox.

    Attributes:
        reports: number of reports checked.
        cases: number of cases in the outbox that were checked.
        gone: number of entries whose released case is no longer in the outbox.
        unreported: number of entries for released cases without a report. Only a report names the
            case, so it is unknown whether such a case is still in the outbox.
        problems: one line per mismatch, with the names of cases and files.
        notes: one line per job under way and per change that users may make.
    """

    reports: int = 0
    cases: int = 0
    gone: int = 0
    unreported: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect_cases(outbox: Path, reports: Path, ends: Sequence[CaseEnd]) -> CaseFindings:
    """Compare all reports and released files with the entries.

    Args:
        outbox: folder of released cases.
        reports: folder of reports.
        ends: entries of all chains.

    Raises:
        OSError: a file cannot be read.
    """
    findings = CaseFindings()
    entered: dict[tuple[str, str], list[CaseEnd]] = {}
    for end in ends:
        entered.setdefault(end.submission, []).append(end)
    reported = list(_reported_ends(reports, findings))
    for report in reported:
        _check_report(report, entered.get(report.submission, []), findings)
    repeated = sum(len({end.outcome for end in same}) < len(same) for same in entered.values())
    if repeated:
        findings.notes.append(
            f"{repeated} submissions have more than one entry: their jobs were delivered twice"
        )
    cases: dict[str, list[ReportedEnd]] = {}
    for report in reported:
        if report.state in _SHOWN:
            cases.setdefault(report.case, []).append(report)
    _check_outbox(outbox, cases, ends, findings)
    _count_gone(outbox, reported, ends, findings)
    return findings


def _reported_ends(folder: Path, findings: CaseFindings) -> Iterator[ReportedEnd]:
    for _, entries in walk_tree(folder, partial(_note_unlisted, findings)):
        for file in (Path(entry.path) for entry in entries if _is_report(entry.name)):
            findings.reports += 1
            try:
                yield _reported_end(file, folder)
            except ValueError:
                findings.problems.append(
                    f"{file.relative_to(folder)} is damaged: it cannot be read as a report"
                )


def _is_report(name: str) -> bool:
    return name in {REPORT, REPEAT} or (name.startswith("earlier-") and name.endswith(".json"))


def _reported_end(file: Path, folder: Path) -> ReportedEnd:
    content = read_bounded(file, LARGEST_REPORT_BYTES)
    report = parse_report(content)
    return ReportedEnd(
        case=file.parent.parent.relative_to(folder).as_posix(),
        job_id=file.parent.name,
        submitted_at=report.created_at,
        state=report.state,
        code=report.result.code,
        outputs={
            file.file: file.output_sha256 for file in report.result.files if file.output_sha256
        },
        digest=digest_of_report(content),
    )


def _check_report(report: ReportedEnd, entries: Sequence[CaseEnd], findings: CaseFindings) -> None:
    job = f"{report.case}, job {report.job_id}"
    outcomes = _ENDED.get(report.state)
    if outcomes is None:
        _check_open_report(job, report, entries, findings)
        return
    if report.code in DROP_REFUSALS and report.state is JobState.REFUSED and not entries:
        return  # the watcher refused the drop, so there was no job
    matching = [end for end in entries if end.outcome in outcomes]
    if not matching:
        findings.problems.append(f"{job} is {report.state}, and no entry says so")
    elif all(end.report != report.digest for end in matching):
        findings.problems.append(f"{job}: its report is not the one that was entered")


def _check_open_report(
    job: str, report: ReportedEnd, entries: Sequence[CaseEnd], findings: CaseFindings
) -> None:
    """Check the report of an unfinished job.

    The digest of a report does not cover its state, so an open state excuses no mismatch.
    """
    released = [end for end in entries if end.outcome is Outcome.RELEASED]
    is_entered = report.state is JobState.PUBLISHED and any(
        end.report == report.digest for end in released
    )
    if released and not is_entered:
        findings.problems.append(f"{job}: its report is not the one that was entered")
    else:
        findings.notes.append(f"{job} has not ended: {report.state}")


def _check_outbox(
    outbox: Path,
    cases: Mapping[str, Sequence[ReportedEnd]],
    ends: Sequence[CaseEnd],
    findings: CaseFindings,
) -> None:
    released = [end for end in ends if end.outcome is Outcome.RELEASED]
    of_job: dict[str, list[CaseEnd]] = {}
    for end in released:
        for job in (end.job_id, *end.replaces):
            of_job.setdefault(job, []).append(end)
    for case, reported in sorted(cases.items()):
        folder = outbox / case
        found = _files(folder, findings)
        digests = {path.relative_to(folder).as_posix(): _digest(path) for path in found}
        if digests:
            findings.cases += 1
            _check_case(case, digests, reported, of_job, findings)
        elif folder.exists():
            findings.problems.append(f"{case} is empty in the outbox")
        else:
            findings.notes.append(f"{case} is no longer in the outbox")
    known = frozenset(str(outbox / case) for case in cases)
    unreported = sorted(
        path.relative_to(outbox).as_posix()
        for path in _files(outbox, findings, enters=lambda folder: folder not in known)
    )
    findings.problems.extend(
        f"{name} is in the outbox, and no report says where it comes from" for name in unreported
    )


def _check_case(
    case: str,
    found: Mapping[str, str],
    reported: Sequence[ReportedEnd],
    of_job: Mapping[str, Sequence[CaseEnd]],
    findings: CaseFindings,
) -> None:
    digest = digest_of(case, found)
    jobs = {report.job_id for report in reported}
    known = [end for job in jobs for end in of_job.get(job, ())]
    matching = [end for end in known if end.outputs == digest]
    if any(not _is_replaced(end, known) for end in matching):
        return
    newest = max(reported, key=lambda report: report.submitted_at)
    if matching:
        findings.problems.append(
            f"{case}: an earlier output is in the place of the one that replaced it"
        )
    elif newest.outputs != found:
        findings.problems.extend(
            f"{case}: {difference}" for difference in _differences(newest.outputs, found)
        )
    else:
        # A case that is being published looks the same. If it still does in a second run, its
        # worker was killed and the next one will finish it.
        findings.problems.append(f"{case} is in the outbox, and no entry says that it was released")


def _count_gone(
    outbox: Path, reported: Sequence[ReportedEnd], ends: Sequence[CaseEnd], findings: CaseFindings
) -> None:
    """Count current releases that are missing from the outbox.

    Users move released cases on, so this is a note and not a problem.
    """
    case_of = {report.submission: report.case for report in reported}
    released = [end for end in ends if end.outcome is Outcome.RELEASED]
    later: dict[str, str] = {}
    for end in released:
        for job in (end.job_id, *end.replaces):
            later[job] = max(later.get(job, ""), end.submitted_at)
    last = {end.submission: end.job_id for end in released if later[end.job_id] <= end.submitted_at}
    findings.gone = sum(
        not (outbox / case_of[submission]).exists() for submission in last if submission in case_of
    )
    unreported = sorted({job for submission, job in last.items() if submission not in case_of})
    findings.unreported = len(unreported)
    if findings.gone:
        findings.notes.append(
            f"{findings.gone} entries are of released cases that are no longer in the outbox"
        )
    if unreported:
        jobs = ", ".join(unreported[:_MOST_NAMED])
        more = ", …" if len(unreported) > _MOST_NAMED else ""
        findings.notes.append(
            f"{len(unreported)} entries are of released cases without a report, so it is unknown "
            f"whether they are in the outbox: jobs {jobs}{more}"
        )


def _is_replaced(end: CaseEnd, known: Sequence[CaseEnd]) -> bool:
    """Return whether a later release replaced this one.

    It is a release of the same job, or of another job whose entry names this one as replaced.
    """
    return any(
        other.submitted_at > end.submitted_at
        and (other.job_id == end.job_id or end.job_id in other.replaces)
        for other in known
    )


def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} was added"
        elif wanted[name] != found[name]:
            yield f"{name} was altered"


def _files(
    root: Path, findings: CaseFindings, enters: Callable[[str], bool] = lambda _folder: True
) -> Iterator[Path]:
    """Yield all files and links below a folder.

    Args:
        root: the folder.
        findings: receives the folders that cannot be listed.
        enters: tells by its path whether a folder is entered.
    """
    for _, entries in walk_tree(root, partial(_note_unlisted, findings), enters=enters):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _note_unlisted(findings: CaseFindings, error: OSError) -> None:
    """Note a folder that cannot be listed, unless a running service has removed it.

    Raises:
        PermissionError: this user may not read it; an unreadable folder must not look like an empty
            one.
    """
    if isinstance(error, PermissionError):
        raise error
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        name = str(error.filename)
        shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
        findings.problems.append(f"{shown} cannot be listed ({error.strerror}): remove it")


def _digest(path: Path) -> str:
    """Return the SHA-256 of a regular file.

    Anything else gives an empty string: a released case contains no links, so a link never
    matches.
    """
    if path.is_symlink() or not path.is_file():
        return ""
    return sha256_of(path)
