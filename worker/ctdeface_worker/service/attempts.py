"""Attempts at a job, counted in its report folder.

One worker at a time attempts a job.

The count includes attempts that ended together with their worker or host.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ctdeface_shared.errors import CtDefaceError, StorageUnavailable
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, claim_name, locked

_UNRECORDED_DELIVERIES = 20
"""Deliveries without a recorded attempt that cost the job nothing.

A queue also delivers again what a closing worker had received and not begun.
"""


class JobInProgress(CtDefaceError):
    """Another worker is processing this job, which was delivered twice."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt at a job.

    Attributes:
        folder: report folder of the job, which holds the record of attempts.
        number: from 1, over all deliveries and workers.
        earlier: attempts that were on record before this one.
    """

    folder: Path
    number: int
    earlier: int = 0

    @classmethod
    def after(cls, folder: Path, delivery: int) -> Self:
        """Return the next attempt at a job.

        Args:
            folder: report folder of the job.
            delivery: number of this delivery, counted by the queue from 1. It decides only when a
                job is delivered again and again and no attempt is ever recorded.

        Raises:
            OSError: the record of attempts cannot be read.
        """
        earlier = attempt_log.read(folder).count
        number = max(delivery - _UNRECORDED_DELIVERIES, earlier) + 1
        return cls(folder=folder, number=number, earlier=earlier)

    def begin(self) -> None:
        """Record the attempt durably before it begins.

        Raises:
            StorageUnavailable: storage is full or unreachable.
            OSError: it cannot be recorded for another reason.
        """
        with atomic.storage_errors():
            attempt_log.begin(self.folder)

    def hand_back(self) -> None:
        """Take the attempt out of the count.

        The case is not at fault. The file decides whether the attempt was recorded: a write may
        arrive although its fsync failed.
        """
        # If this cannot be recorded either, the attempt counts.
        with suppress(OSError):
            if attempt_log.read(self.folder).count > self.earlier:
                attempt_log.hand_back(self.folder)

    def fail(self, code: str) -> None:
        """Record for `ctdeface status` why the attempt will be repeated."""
        with suppress(OSError):
            if attempt_log.read(self.folder).is_open:
                attempt_log.fail(self.folder, code)


@contextmanager
def claimed(locks: Path, job_id: str) -> Iterator[None]:
    """Hold the claim on a job.

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
                    wait_seconds=0,
                )
            )
        except StorageUnavailable:
            raise JobInProgress("another worker is at this job") from None
        yield
