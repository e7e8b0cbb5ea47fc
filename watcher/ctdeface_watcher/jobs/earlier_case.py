"""Earlier cases of a name, and whether a drop belongs to them."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """Whether a drop belongs to the earlier case of its name.

    Attributes:
        belongs: whether owner, study and patient agree, or there is no earlier case.
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
    if earlier is not None and not _same_owner(earlier, record):
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


def free_name(spool: ServiceSpool, case: str) -> str:
    """Return a name like a case's that nothing in the spool has."""
    used = {record.case for taken in taken_cases(spool) if (record := taken.record())}
    places = (
        spool.inbox,
        spool.outbox,
        spool.quarantine,
        spool.reports,
        spool.archive / "originals",
        spool.archive / "outputs",
    )
    return next(
        name
        for number in count(2)
        if (name := f"{case}-{number}") not in used
        and not history_of(spool, name)
        and not any(case_path(place, name).exists() for place in places)
    )


def _known_folders(spool: ServiceSpool, case: str, earlier: EarlierCase | None) -> Iterator[Path]:
    """Yield the folders whose headers tell who the earlier case is."""
    if earlier is not None and earlier.folder is not None:
        yield earlier.folder
    output = case_path(spool.outbox, case)
    if output.is_dir() and not output.is_symlink():
        yield output


def _same_owner(earlier: EarlierCase, record: DropRecord) -> bool:
    return earlier.owner is None or earlier.owner == record.owner


def _identity(folder: Path) -> DropIdentity:
    return read_identity(folder, names_in(folder))
