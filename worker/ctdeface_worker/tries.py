"""Counts the attempts at a job on the shared disk, so that a job that takes its whole worker or host down is counted too."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from ctdeface_shared import durable
from ctdeface_shared.spool import PRIVATE

RECORD = "attempts.log"
_BEGUN, _HANDED_BACK = "begun", "handed back"


def begun(folder: Path) -> int:
    """Return how many attempts at a job began and were not handed back; `folder` is the job's report folder."""
    try:
        lines = (folder / RECORD).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0
    return sum(line.endswith(_BEGUN) for line in lines) - sum(line.endswith(_HANDED_BACK) for line in lines)


def begin(folder: Path) -> None:
    """Record durably that an attempt begins.

    Raises:
        OSError: it cannot be recorded, so it must not begin.
    """
    durable.make_folder(folder, mode=PRIVATE)
    _append(folder, _BEGUN)
    durable.sync_folder(folder)


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
