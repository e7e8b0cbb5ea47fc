"""What the watcher itself refuses: a report like the workers', and the dropped files in the quarantine; can be repeated after a crash."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, case_path

SCHEMA_VERSION = 1
"""Of the reports; the workers' tests read these reports as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A drop that becomes no job.

    Attributes:
        case: its name.
        manifest: what was dropped.
        options: what would have been asked for.
        error: why.
    """

    case: str
    manifest: Manifest
    options: DefaceOptions
    error: PermanentError


def refuse(spool: ServiceSpool, refusal: Refusal, source: Path | None) -> str:
    """Report a refused drop, move it into the quarantine, and return the id that names it there.

    Args:
        spool: where everything lies.
        refusal: what and why.
        source: a case's folder or a zip file; None when it stays in the inbox.

    Raises:
        OSError: storage failed; nothing is lost, and it can be repeated.
    """
    generation = next(
        number for number in count() if not (_place(spool, refusal, number) / "originals").exists()
    )
    place = _place(spool, refusal, generation)
    content = json.dumps(
        _report(refusal, place.name, generation), indent=1, ensure_ascii=False
    ).encode("utf-8", "backslashreplace")
    for folder in (case_path(spool.reports, refusal.case) / place.name, place):
        atomic.make_folder(folder, mode=PRIVATE)
        atomic.write_file(folder / "report.json", content)
    if source is None:
        return place.name
    target = place / "originals"
    if not source.is_dir():
        atomic.make_folder(target, mode=PRIVATE)
        target /= source.name
    source.rename(target)
    atomic.sync_folder(target.parent)
    atomic.sync_folder(source.parent)
    return place.name


def _place(spool: ServiceSpool, refusal: Refusal, generation: int) -> Path:
    """Where a drop goes; the same files, dropped again, count as the next generation."""
    return case_path(spool.quarantine, refusal.case) / job_id(
        refusal.case, refusal.manifest, refusal.options, generation
    )


def _report(refusal: Refusal, identity: str, generation: int) -> dict[str, Any]:
    return {
        "job_id": identity,
        "case": refusal.case,
        "generation": generation,
        "state": "refused",
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "manifest": asdict(refusal.manifest),
        "options": refusal.options.as_plain(),
        "result": {"released": False, "code": refusal.error.code, "reason": str(refusal.error)},
        "schema_version": SCHEMA_VERSION,
    }
