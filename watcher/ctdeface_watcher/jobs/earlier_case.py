"""The earlier case that late files belong to."""

from collections.abc import Sequence

from ctdeface_shared.errors import MixedPatients
from ctdeface_shared.jobs.history import DROP_REFUSALS, JobRecord, history_of, reported_files
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_watcher.inbox.late_files import EarlierCase, gather, unfinished_gatherings


def find_earlier_case(
    spool: ServiceSpool, case: str, history: Sequence[JobRecord]
) -> EarlierCase | None:
    """Return the files of a case's newest ended job.

    Args:
        spool: the folders of the service.
        case: name of the case.
        history: its jobs, oldest first.

    Returns:
        None if no job has ended, none lists its files, or the case mixed patients.

    Raises:
        OSError: storage failed.
    """
    for job in reversed(history):
        if not job.ended or job.code in DROP_REFUSALS:
            continue
        if job.code == MixedPatients.__name__:
            return None
        for folder in (
            case_path(spool.archive / "originals", case) / job.job_id,
            case_path(spool.quarantine, case) / job.job_id / "originals",
        ):
            if folder.is_dir():
                return EarlierCase.in_folder(folder)
        files = reported_files(spool, case, job.job_id) if job.state is not JobState.REFUSED else {}
        if files:
            return EarlierCase(
                files={name: (known.size, known.sha256) for name, known in files.items()}
            )
    return None


def finish_gatherings(spool: ServiceSpool, case_depth: int) -> dict[str, OSError]:
    """Finish interrupted gatherings; return the errors by case.

    Raises:
        OSError: the inbox cannot be read.
    """
    errors: dict[str, OSError] = {}
    for drop in unfinished_gatherings(spool.inbox, case_depth):
        case = drop.relative_to(spool.inbox).as_posix()
        try:
            earlier = find_earlier_case(spool, case, history_of(spool, case))
            gather(drop, earlier.folder if earlier else None)
        except OSError as error:
            errors[case] = error
    return errors
