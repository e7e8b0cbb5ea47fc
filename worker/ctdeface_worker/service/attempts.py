"""The attempts at a job: one at a time, and counted on the shared disk, also those that took a whole worker or host down."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ctdeface_shared.errors import CtDefaceError, StorageUnavailable
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, claim_name, locked
from ctdeface_shared.storage.spool import PRIVATE

RECORD = "attempts.log"
_BEGUN, _HANDED_BACK = "begun", "handed back"


class JobInProgress(CtDefaceError):
    """Another worker is at this job right now: it was delivered twice."""


@contextmanager
def claimed(locks: Path, job_id: str) -> Iterator[None]:
    """Be the only worker at a job for the time of the block.

    Raises:
        JobInProgress: another one is.
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


def begun(folder: Path) -> int:
    """Return how many attempts at a job began and were not handed back; `folder` is the job's report folder."""
    try:
        lines = (folder / RECORD).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0
    return sum(line.endswith(_BEGUN) for line in lines) - sum(
        line.endswith(_HANDED_BACK) for line in lines
    )


def begin(folder: Path) -> None:
    """Record durably that an attempt begins.

    Raises:
        OSError: it cannot be recorded, so it must not begin.
    """
    atomic.make_folder(folder, mode=PRIVATE)
    _append(folder, _BEGUN)
    atomic.sync_folder(folder)


def hand_back(folder: Path) -> None:
    """Record that the attempt was broken off by a stop and does not count."""
    _append(folder, _HANDED_BACK)


def _append(folder: Path, what: str) -> None:
    line = f"{datetime.now(UTC).isoformat(timespec='seconds')} {socket.gethostname()} {os.getpid()} {what}\n"
    descriptor = os.open(folder / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
