"""Refusals by the watcher: a report and the quarantine.

Every step can be repeated after a crash.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.history import instant
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.reports import REPORT
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.jobs.taken import DropRecord, TakenCase
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.checksum import digest_of_text
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, case_path

SCHEMA_VERSION = 1
"""Version of the report schema; the workers' reader must accept these reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A drop that makes no job.

    Attributes:
        case: name of the case.
        manifest: fingerprint of the drop.
        options: options that its job would have had.
        error: why it is refused.
    """

    case: str
    manifest: Manifest
    options: DefaceOptions
    error: PermanentError


def refuse_taken(
    spool: ServiceSpool,
    taken: TakenCase,
    record: DropRecord,
    options: DefaceOptions,
    error: PermanentError,
) -> str:
    """Report a refused drop, move it into the quarantine and remove its taken folder.

    Args:
        spool: the folders of the service.
        taken: the folder of the drop.
        record: its record.
        options: options that its job would have had.
        error: why it is refused.

    Returns:
        The job id that names the drop in quarantine and reports.

    Raises:
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    # Without a manifest the content is not known, and each drop counts as another one.
    unread = Manifest(files=0, bytes=0, digest=digest_of_text([taken.taken_id]))
    refusal = Refusal(
        case=record.case, manifest=record.manifest or unread, options=options, error=error
    )
    places = () if record.left_in_inbox else (taken.archive, taken.files, taken.drop)
    source = next((place for place in places if os.path.lexists(place)), None)
    name = record.entry.rpartition("/")[2]
    try:
        identity = refuse(spool, refusal, source, name)
    except PermissionError:  # its owner took the right to move it from the service
        identity = refuse(spool, refusal, taken.folder, name)
    taken.remove()
    return identity


def refuse(spool: ServiceSpool, refusal: Refusal, source: Path | None, name: str) -> str:
    """Report a refused drop and move it into the quarantine.

    Args:
        spool: the folders of the service.
        refusal: the drop and the reason.
        source: the drop in its taken folder; None if it stays in the inbox.
        name: of the dropped folder or file.

    Returns:
        The job id that names the drop in quarantine and reports.

    Raises:
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    generation = next(
        number
        for number in count()
        if not os.path.lexists(_place(spool, refusal, number) / "originals")
    )
    place = _place(spool, refusal, generation)
    content = json.dumps(
        _report(refusal, place.name, generation), indent=1, ensure_ascii=False
    ).encode("utf-8", "backslashreplace")
    for folder in (case_path(spool.reports, refusal.case) / place.name, place):
        atomic.make_folder(folder, mode=PRIVATE)
        atomic.write_file(folder / REPORT, content)
    if source is None:
        return place.name
    target = place / "originals"
    if source.is_symlink() or not source.is_dir():
        atomic.make_folder(target, mode=PRIVATE)
        target /= name
    source.rename(target)
    atomic.sync_folder(target.parent)
    atomic.sync_folder(source.parent)
    return place.name


def _place(spool: ServiceSpool, refusal: Refusal, generation: int) -> Path:
    """Return the quarantine folder of a drop.

    The same files dropped again count as the next generation.
    """
    identity = job_id(refusal.case, refusal.manifest, refusal.options, generation)
    return case_path(spool.quarantine, refusal.case) / identity


def _report(refusal: Refusal, identity: str, generation: int) -> dict[str, Any]:
    return {
        "job_id": identity,
        "case": refusal.case,
        "generation": generation,
        "state": JobState.REFUSED,
        "created_at": instant(datetime.now(UTC)),
        "manifest": asdict(refusal.manifest),
        "options": refusal.options.as_plain(),
        "result": {"released": False, "code": refusal.error.code, "reason": str(refusal.error)},
        "schema_version": SCHEMA_VERSION,
    }
