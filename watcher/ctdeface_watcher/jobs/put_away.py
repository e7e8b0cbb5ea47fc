"""Putting away of what a taken case does not need any more.

Every step can be repeated after a crash.
"""

from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.jobs.history import JobRecord
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.jobs.taken import DropRecord, TakenCase
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, case_path

_log = logs.logger(__name__)


def put_away_zip(
    spool: ServiceSpool, taken: TakenCase, record: DropRecord, originals: Originals
) -> None:
    """Archive or delete a zip file whose content was taken.

    Args:
        spool: the folders of the service.
        taken: the folder that holds it.
        record: its record with a manifest.
        originals: what to do with it; one that was left in the inbox is deleted here.

    Raises:
        OSError: storage failed.
    """
    if not record.is_zip or record.manifest is None or not taken.archive.exists():
        return
    if originals is Originals.ARCHIVE:
        identity = job_id(record.entry, record.manifest, DefaceOptions())
        place = case_path(spool.archive / "zips", record.entry) / identity
        atomic.make_folder(place, mode=PRIVATE)
        taken.archive.replace(place / record.entry.rpartition("/")[2])
        atomic.sync_folder(place)
    else:
        taken.archive.unlink()
    atomic.sync_folder(taken.folder)


def put_away_repeated(
    spool: ServiceSpool, taken: TakenCase, latest: JobRecord, originals: Originals
) -> None:
    """Remove a drop whose content is known, unless it is the only copy.

    With the rule `keep` it is in the inbox as well, unless it was moved before that rule was set.

    Args:
        spool: the folders of the service.
        taken: the folder of the drop.
        latest: the job of the same case and content.
        originals: whether dropped files are archived, deleted or kept.

    Raises:
        OSError: storage failed.
    """
    place = _place_of(spool, latest)
    record = taken.record()
    is_copy = record is not None and record.left_in_inbox
    is_wanted = originals is Originals.ARCHIVE or (
        latest.state is JobState.REFUSED if originals is Originals.DELETE else not is_copy
    )
    if is_wanted and taken.files.is_dir() and not _holds(place, latest.digest):
        atomic.make_folder(place.parent, mode=PRIVATE)
        target, number = place, 1
        while target.exists():
            number += 1
            target = place.with_name(f"{place.name}-{number}")
        taken.files.rename(target)
        atomic.sync_folder(place.parent)
    taken.remove()
    _log.info("drop_known", job_id=latest.job_id)


def _place_of(spool: ServiceSpool, latest: JobRecord) -> Path:
    if latest.state is JobState.REFUSED:
        return case_path(spool.quarantine, latest.case) / latest.job_id / "originals"
    return case_path(spool.archive / "originals", latest.case) / latest.job_id


def _holds(place: Path, digest: str) -> bool:
    return place.is_dir() and Manifest.scan(place).digest == digest
