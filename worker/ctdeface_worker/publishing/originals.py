"""Dropped files after the end of their job: one rename out of `taken`.

Every step can be repeated after a crash.
"""

from pathlib import Path

from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, case_path
from ctdeface_worker.report.model import CaseReport


def rule_of(spool: ServiceSpool, report: CaseReport, rule: Originals) -> Originals:
    """Return what happens to the originals of a job.

    With the rule `keep`, those that are not in the inbox are the only copy, such as those of a
    replay from the quarantine. They are archived.

    Raises:
        OSError: the record of the case cannot be read.
    """
    if rule is not Originals.KEEP or not report.taken:
        return rule
    record = taken_case(spool, report.taken).record()
    return rule if record is not None and record.left_in_inbox else Originals.ARCHIVE


def archive(spool: ServiceSpool, report: CaseReport) -> None:
    """Move the originals of a job to the archive.

    Raises:
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    move(spool, report, case_path(spool.archive / "originals", report.case) / report.job_id)


def move(spool: ServiceSpool, report: CaseReport, place: Path) -> None:
    """Move the originals of a job out of `taken`; do nothing if they are not there any more.

    The same files, when they were dropped again, are put beside the earlier ones with a number.

    Raises:
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    source = taken_case(spool, report.taken).files
    if not report.taken or not source.is_dir():
        return
    free = _free(place)
    atomic.make_folder(free.parent, mode=PRIVATE)
    source.rename(free)
    atomic.sync_folder(free.parent)
    atomic.sync_folder(source.parent)


def _free(place: Path) -> Path:
    """Return the place, or the first numbered one beside it that is free."""
    free, number = place, 1
    while free.exists():
        number += 1
        free = place.with_name(f"{place.name}-{number}")
    return free
