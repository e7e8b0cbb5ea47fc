"""What the reports say about a case; they are the truth about every job that began."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ctdeface_shared.jobs.history import FINAL, ORDERED, instant
from ctdeface_shared.jobs.messages import read_options
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.replay.request import pending_orders
from ctdeface_shared.storage.locks import UNFINISHED, is_claimed
from ctdeface_shared.storage.spool import ServiceSpool, case_path

PUBLISHING = frozenset({"prepared", "published"})
ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastJob:
    """One job of a case, as far as its report tells.

    Attributes:
        job_id: which.
        state: prepared, published, done, refused or superseded; `ordered` for a replay without a
            report; `abandoned` where a publication was begun, and neither a worker nor anything in
            staging will bring it to its end.
        digest: of the manifest that it was made for.
        generation: 0 for a drop, higher for a replay.
        created_at: UTC, ISO 8601.
        code: why it was refused; empty when it was not.
        options: what was asked for; None where that is not known.
    """

    job_id: str
    state: str
    digest: str
    generation: int
    created_at: str
    code: str = ""
    options: DefaceOptions | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in FINAL


def history_of(spool: ServiceSpool, case: str) -> tuple[PastJob, ...]:
    """Return what is known about a case, oldest first.

    Raises:
        OSError: a report cannot be read right now.
    """
    jobs = (*_jobs(spool, case), *_ordered(spool, case))
    return tuple(sorted(jobs, key=lambda job: job.created_at))


def files_of(spool: ServiceSpool, case: str, job_id: str) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of every file that a job consisted of, by name; empty where its report does not tell.

    Raises:
        OSError: the report cannot be read right now.
    """
    report = _read(case_path(spool.reports, case) / job_id / "report.json")
    try:
        return {file["file"]: (file["size"], file["sha256"]) for file in report["result"]["files"]}
    except (KeyError, TypeError):
        return {}


def _jobs(spool: ServiceSpool, case: str) -> Iterator[PastJob]:
    for path in case_path(spool.reports, case).glob("*/report.json"):
        report = _read(path)
        try:
            lost = report["state"] in PUBLISHING and not _is_in_hand(
                spool, report["job_id"], report.get("staged", "")
            )
            yield PastJob(
                job_id=report["job_id"],
                state=ABANDONED if lost else report["state"],
                digest=report["manifest"]["digest"],
                generation=report["generation"],
                created_at=instant(datetime.fromisoformat(report["created_at"])),
                code=report["result"]["code"],
                options=_options(report),
            )
        except (KeyError, TypeError, ValueError):
            continue  # no report of ours, or of another version: it proves nothing


def _is_in_hand(spool: ServiceSpool, job_id: str, staged: str) -> bool:
    """Whether a worker is publishing a job, or the next one to start will: after a restore from a backup nobody does."""
    if is_claimed(spool.locks, job_id):
        return True
    return bool(staged) and (spool.staging / Path(staged).name / UNFINISHED).exists()


def _ordered(spool: ServiceSpool, case: str) -> Iterator[PastJob]:
    """Yield replays that were ordered: originals that lie in the inbox again have their job already."""
    for order in pending_orders(spool, case):
        job = order.job
        yield PastJob(
            job_id=job.job_id,
            state=ORDERED,
            digest=job.manifest.digest,
            generation=job.generation,
            created_at=instant(job.submitted_at),
            options=job.options,
        )


def _options(report: Any) -> DefaceOptions | None:
    try:
        return read_options(report["options"])
    except (KeyError, ValueError):
        return None  # of another version


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
