"""The claim that keeps a second worker away from a job."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctdeface_shared.errors import CtDefaceError, StorageUnavailable
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, claim_name, locked


class JobInProgress(CtDefaceError):
    """Another worker is processing this job, which was delivered twice."""


@contextmanager
def claimed(locks: Path, job_id: str) -> Iterator[None]:
    """Hold the claim on a job for the duration of the block.

    Raises:
        JobInProgress: another worker holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(
                locked(
                    locks,
                    claim_name(job_id),
                    stale_seconds=MISSED_HEARTBEATS_SECONDS,
                    patience_seconds=0,
                )
            )
        except StorageUnavailable:
            raise JobInProgress("another worker is at this job") from None
        yield
