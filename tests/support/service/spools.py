"""Spools for the tests of the service: dropping cases, and seeing what became of them."""

import shutil
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.taken import TakenCase, new_record, taken_cases
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.report.model import CaseReport

OPTIONS = DefaceOptions()


def drop(spool: ServiceSpool, name: str, plan: str = "release", files: int = 2) -> Path:
    """Put a case into the inbox, whole: on a busy machine a pause could look like its end."""
    folder = spool.inbox / name
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    (hidden / "plan.txt").write_text(f"{plan}\n{name}\n", encoding="utf-8")
    for number in range(files - 1):
        (hidden / f"{number}.dcm").write_bytes(f"{name} {number}".encode() * 100)
    return hidden.rename(folder)


def job_for(
    spool: ServiceSpool,
    name: str,
    generation: int = 0,
    submitted_at: datetime | None = None,
    *,
    copied: bool = False,
) -> DefaceJob:
    """Take a dropped case as the watcher would, and return its job.

    Args:
        spool: holds the case in its inbox.
        name: of the case.
        generation: of the job.
        submitted_at: time of the job; now by default.
        copied: whether the drop stays in the inbox.
    """
    record = new_record(name, name)
    taken = TakenCase.create(spool, record)
    if copied:
        shutil.copytree(spool.inbox / name, taken.files)
    else:
        (spool.inbox / name).rename(taken.files)
    manifest = Manifest.scan(taken.files)
    taken.write_record(replace(record, manifest=manifest, left_in_inbox=copied))
    job = DefaceJob(
        job_id=job_id(name, manifest, OPTIONS, generation),
        case=name,
        manifest=manifest,
        generation=generation,
        submitted_at=submitted_at or datetime.now(UTC),
        options=OPTIONS,
        taken=taken.taken_id,
        left_in_inbox=copied,
    )
    taken.write_job(job)
    return job


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where cases are: names, sorted."""

    inbox: list[str]
    outbox: list[str]
    quarantine: list[str]
    taken: list[str] = field(default_factory=list)

    @property
    def not_ended(self) -> list[str]:
        """Return the cases that wait or are in flight."""
        return [*self.inbox, *self.taken]


def ends(spool: ServiceSpool) -> Ends:
    """Look where the cases are."""
    return Ends(
        inbox=_names(spool.inbox),
        outbox=_names(spool.outbox),
        quarantine=_names(spool.quarantine),
        taken=sorted(_case_of(one) for one in taken_cases(spool)),
    )


def reports(spool: ServiceSpool, name: str) -> list[CaseReport]:
    """Return every report of a case."""
    return [
        CaseReport.from_json(path.read_bytes())
        for path in sorted((spool.reports / name).glob("*/report.json"))
    ]


def _case_of(taken: TakenCase) -> str:
    record = taken.record()
    return record.case if record else taken.taken_id


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
