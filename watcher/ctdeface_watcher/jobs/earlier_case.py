"""Earlier cases of a name, and whether a drop belongs to them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ctdeface_shared.errors import MixedPatients
from ctdeface_shared.jobs.history import DROP_REFUSALS, JobRecord, history_of, reported_files
from ctdeface_shared.jobs.identity import DropIdentity
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.jobs.taken import DropRecord, taken_cases
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_watcher.inbox.identity import read_identity
from ctdeface_watcher.inbox.late_files import EarlierCase, names_in

_LONGEST_NAME_BYTES = 255
"""Maximum length of a folder name on common file systems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """Whether a drop belongs to the earlier case of its name.

    Attributes:
        belongs: whether owner, study and patient agree, or nothing is known of an earlier case.
        earlier: files of the earlier case, if they are known.
    """

    belongs: bool
    earlier: EarlierCase | None = None


def compare(
    spool: ServiceSpool, drop: Path, record: DropRecord, history: Sequence[JobRecord]
) -> Belonging:
    """Compare a drop with the earlier case of its name.

    Where nothing of the earlier case is left to compare with, a released one is taken for another.

    Args:
        spool: the folders of the service.
        drop: private folder of the drop.
        record: of the drop.
        history: jobs of the case, oldest first.

    Raises:
        OSError: storage failed.
    """
    ended = [job for job in history if job.ended and job.code not in DROP_REFUSALS]
    if not ended:
        return Belonging(belongs=True)
    earlier = find_earlier_case(spool, record.case, ended)
    known = list(_known_folders(spool, record.case, earlier))
    if not known:
        return Belonging(belongs=all(job.state is JobState.REFUSED for job in ended))
    owner = ended[-1].owner if earlier is None else earlier.owner
    if owner not in {None, record.owner}:
        return Belonging(belongs=False)
    dropped = read_identity(drop, names_in(drop))
    return Belonging(
        belongs=all(dropped.belongs_to(_identity(folder)) for folder in known), earlier=earlier
    )


def find_earlier_case(
    spool: ServiceSpool, case: str, history: Sequence[JobRecord]
) -> EarlierCase | None:
    """Return the files of a case's newest ended job.

    Args:
        spool: the folders of the service.
        case: name of the case.
        history: its ended jobs, oldest first.

    Returns:
        None if no job has ended, none lists its files, or the case mixed patients.

    Raises:
        OSError: storage failed.
    """
    for job in reversed(history):
        if job.code == MixedPatients.__name__:
            return None
        for folder in (
            case_path(spool.archive / "originals", case) / job.job_id,
            case_path(spool.quarantine, case) / job.job_id / "originals",
        ):
            if folder.is_dir():
                # Release 0.1.0 recorded no owner, and moved the folder as its owner made it.
                owner = folder.stat().st_uid if job.owner is None else job.owner
                return EarlierCase.in_folder(folder, owner)
        files = reported_files(spool, case, job.job_id) if job.state is not JobState.REFUSED else {}
        if files:
            return EarlierCase(
                files={name: (known.size, known.sha256) for name, known in files.items()},
                owner=job.owner,
            )
    return None


def next_name(spool: ServiceSpool, record: DropRecord) -> str:
    """Return the next name to try for a drop that does not belong.

    It is the name in the inbox with a number: that of another case that the drop may belong to,
    also one of its owner that has not ended, or one that nothing in the spool has.
    """
    first = record.entry[: -len(".zip")] if record.is_zip else record.entry
    number = 2
    if record.case != first:
        number = int(record.case.rpartition("-")[2]) + 1
    taken = {one.case: one.owner for one in _taken_records(spool)}
    names = (_numbered(first, candidate) for candidate in count(number))
    return next(
        name
        for name in names
        if history_of(spool, name)
        or (name in taken and taken[name] == record.owner)
        or not (name in taken or _is_used(spool, name))
    )


def _numbered(name: str, number: int) -> str:
    """Return a name with a number, shortened to what a file system allows."""
    parents, _, leaf = name.rpartition("/")
    suffix = f"-{number}"
    while len(f"{leaf}{suffix}".encode()) > _LONGEST_NAME_BYTES:
        leaf = leaf[:-1]
    return f"{parents}/{leaf}{suffix}" if parents else f"{leaf}{suffix}"


def _is_used(spool: ServiceSpool, name: str) -> bool:
    places = (
        spool.inbox,
        spool.outbox,
        spool.quarantine,
        spool.archive / "originals",
        spool.archive / "outputs",
    )
    return any(os.path.lexists(case_path(place, name)) for place in places)


def _taken_records(spool: ServiceSpool) -> Iterator[DropRecord]:
    return (record for one in taken_cases(spool) if (record := one.record()) is not None)


def _known_folders(spool: ServiceSpool, case: str, earlier: EarlierCase | None) -> Iterator[Path]:
    """Yield the folders whose headers tell who the earlier case is."""
    if earlier is not None and earlier.folder is not None:
        yield earlier.folder
    output = case_path(spool.outbox, case)
    if output.is_dir() and not output.is_symlink():
        yield output


def _identity(folder: Path) -> DropIdentity:
    return read_identity(folder, names_in(folder))
