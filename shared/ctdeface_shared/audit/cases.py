"""Holds reports and outbox against what the chains say: no case without an entry, no file and no report other than was entered."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.audit.entry import CaseEnd, Outcome, digest_of, digest_of_report
from ctdeface_shared.jobs.history import DROP_REFUSALS
from ctdeface_shared.jobs.reports import REPEAT, REPORT, parse_report
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage.checksum import sha256_of

_ENDED = {
    JobState.DONE: frozenset({Outcome.RELEASED}),
    JobState.REFUSED: frozenset({Outcome.QUARANTINED, Outcome.REJECTED}),
    JobState.SUPERSEDED: frozenset({Outcome.SUPERSEDED}),
}
_SHOWN = frozenset({JobState.PUBLISHED, JobState.DONE})
_NAMED = 10
"""So many jobs are named in one note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One report, as far as it matters here.

    Attributes:
        case: whose it is.
        job_id: of which job.
        submitted_at: of which submission of it.
        state: how far it came.
        code: why it was refused.
        outputs: SHA-256 of each released file.
        digest: of the report.
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
        """What an entry about it is about."""
        return (self.job_id, self.submitted_at)


@dataclass(slots=True, kw_only=True)
class CaseFindings:
    """What came of looking at reports and outbox.

    Attributes:
        reports: how many were looked at.
        cases: how many of the outbox were looked at.
        gone: how many entries are of released cases that are no longer in the outbox.
        unreported: of how many entries of released cases no report is left, so that nobody can say
            whether they are in the outbox.
        problems: what should not be; cases and files by name.
        notes: what is under way or was done by people.
    """

    reports: int = 0
    cases: int = 0
    gone: int = 0
    unreported: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect_cases(outbox: Path, reports: Path, ends: Sequence[CaseEnd]) -> CaseFindings:
    """Hold every report and every file of the outbox against the entries of all chains.

    Args:
        outbox: released cases.
        reports: what is said about jobs.
        ends: what the chains say.

    Raises:
        OSError: a file cannot be read.
    """
    findings = CaseFindings()
    entered: dict[tuple[str, str], list[CaseEnd]] = {}
    for end in ends:
        entered.setdefault(end.submission, []).append(end)
    told = list(_reports(reports, findings))
    for one in told:
        _hold_report(one, entered.get(one.submission, []), findings)
    twice = sum(len({end.outcome for end in same}) < len(same) for same in entered.values())
    findings.notes.extend(
        [f"{twice} submissions have more than one entry: their jobs were met twice"]
        if twice
        else []
    )
    cases: dict[str, list[Told]] = {}
    for one in told:
        if one.state in _SHOWN:
            cases.setdefault(one.case, []).append(one)
    _hold_outbox(outbox, cases, ends, findings)
    _count_gone(outbox, told, ends, findings)
    return findings


def _reports(folder: Path, findings: CaseFindings) -> Iterator[Told]:
    for parent, _, names in os.walk(folder, onerror=_unless_gone):
        for name in sorted(names):
            if name in {REPORT, REPEAT} or (name.startswith("earlier-") and name.endswith(".json")):
                job = Path(parent)
                findings.reports += 1
                try:
                    yield _told(
                        job, job.parent.relative_to(folder).as_posix(), (job / name).read_bytes()
                    )
                except ValueError:
                    findings.problems.append(
                        f"{(job / name).relative_to(folder)} is damaged: it cannot be read as a report"
                    )


def _told(job: Path, case: str, content: bytes) -> Told:
    report = parse_report(content)
    return Told(
        case=case,
        job_id=job.name,
        submitted_at=report.created_at,
        state=report.state,
        code=report.result.code,
        outputs={
            file.file: file.output_sha256 for file in report.result.files if file.output_sha256
        },
        digest=digest_of_report(content),
    )


def _hold_report(told: Told, entries: Sequence[CaseEnd], findings: CaseFindings) -> None:
    where = f"{told.case}, job {told.job_id}"
    wanted = _ENDED.get(told.state)
    if wanted is None:
        _hold_open_report(where, told, entries, findings)
        return
    if told.code in DROP_REFUSALS and told.state is JobState.REFUSED and not entries:
        return
    fitting = [end for end in entries if end.outcome in wanted]
    if not fitting:
        findings.problems.append(f"{where} is {told.state}, and no entry says so")
    elif all(end.report != told.digest for end in fitting):
        findings.problems.append(f"{where}: its report is not the one that was entered")


def _hold_open_report(
    where: str, told: Told, entries: Sequence[CaseEnd], findings: CaseFindings
) -> None:
    """Hold a report that says of itself that its job goes on; nothing covers that word of it, so it excuses nothing."""
    released = [end for end in entries if end.outcome is Outcome.RELEASED]
    if released and (
        told.state is not JobState.PUBLISHED or all(end.report != told.digest for end in released)
    ):
        findings.problems.append(f"{where}: its report is not the one that was entered")
    else:
        findings.notes.append(f"{where} has not ended: {told.state}")


def _hold_outbox(
    outbox: Path,
    cases: Mapping[str, Sequence[Told]],
    ends: Sequence[CaseEnd],
    findings: CaseFindings,
) -> None:
    released = [end for end in ends if end.outcome is Outcome.RELEASED]
    of_job: dict[str, list[CaseEnd]] = {}
    for end in released:
        for job in (end.job_id, *end.replaces):
            of_job.setdefault(job, []).append(end)
    for case, told in sorted(cases.items()):
        folder = outbox / case
        present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        if present:
            findings.cases += 1
            _hold_case(
                case,
                {name: _digest(path) for name, path in present.items()},
                told,
                of_job,
                findings,
            )
        elif folder.exists():
            findings.problems.append(f"{case} is empty in the outbox")
        else:
            findings.notes.append(f"{case} is no longer in the outbox")
    strangers = sorted(
        path.relative_to(outbox).as_posix()
        for path in _files(outbox, but=frozenset(outbox / case for case in cases))
    )
    findings.problems.extend(
        f"{name} is in the outbox, and no report says where it comes from" for name in strangers
    )


def _hold_case(
    case: str,
    found: Mapping[str, str],
    told: Sequence[Told],
    of_job: Mapping[str, Sequence[CaseEnd]],
    findings: CaseFindings,
) -> None:
    digest = digest_of(case, found)
    known = [end for job in {one.job_id for one in told} for end in of_job.get(job, ())]
    fitting = [end for end in known if end.outputs == digest]
    if any(not _is_replaced(end, known) for end in fitting):
        return
    newest = max(told, key=lambda one: one.submitted_at)
    if fitting:
        findings.problems.append(
            f"{case}: an earlier output is in the place of the one that replaced it"
        )
    elif newest.outputs != found:
        findings.problems.extend(f"{case}: {what}" for what in _differences(newest.outputs, found))
    # of a case that is just being published too, if it is seen twice: its worker was killed, and
    # the next one goes on with it
    else:
        findings.problems.append(
            f"{case} is in the outbox, and no entry says that it was released"
        )


def _count_gone(
    outbox: Path, told: Sequence[Told], ends: Sequence[CaseEnd], findings: CaseFindings
) -> None:
    """Count the releases that nothing replaced and that are no longer there: people move them on, so that is no problem, but is told."""
    case_of = {one.submission: one.case for one in told}
    released = [end for end in ends if end.outcome is Outcome.RELEASED]
    later: dict[str, str] = {}
    for end in released:
        for job in (end.job_id, *end.replaces):
            later[job] = max(later.get(job, ""), end.submitted_at)
    last = {end.submission: end for end in released if later[end.job_id] <= end.submitted_at}
    findings.gone = sum(not (outbox / case_of[one]).exists() for one in last if one in case_of)
    lost = sorted({end.job_id for one, end in last.items() if one not in case_of})
    findings.unreported = len(lost)
    if findings.gone:
        findings.notes.append(
            f"{findings.gone} entries are of released cases that are no longer in the outbox"
        )
    if lost:
        jobs = ", ".join(lost[:_NAMED]) + (", …" if len(lost) > _NAMED else "")
        findings.notes.append(
            f"{len(lost)} entries are of released cases of which no report is left, nor anything known to be theirs: jobs {jobs}"
        )


def _is_replaced(end: CaseEnd, known: Sequence[CaseEnd]) -> bool:
    """Whether a later release of the same job, or one of another job that names this one, took its place."""
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


def _files(root: Path, but: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield everything below a folder that is no folder, links to folders too, but what lies below some others."""
    for parent, folders, names in os.walk(root, onerror=_unless_gone):
        here = Path(parent)
        yield from (
            here / name
            for name in (*names, *(name for name in folders if (here / name).is_symlink()))
        )
        folders[:] = [name for name in folders if here / name not in but]


def _unless_gone(error: OSError) -> None:
    """Pass over what a running service has moved meanwhile; what cannot be read must not look like nothing."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; a link is none of ours, whatever it points to."""
    if path.is_symlink() or not path.is_file():
        return ""
    return sha256_of(path)
