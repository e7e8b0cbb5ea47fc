"""Read and write `attempts.log`, the record of attempts in a job's report folder.

Each line holds the time, the host, the process id and one of: `begun`, `handed back` (a stop broke
the attempt off, so it does not count) or `failed CODE` (it failed and will be repeated).
"""

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import (
    LARGEST_STATE_BYTES,
    DamagedFile,
    open_regular,
    read_bounded,
)
from ctdeface_shared.storage.spool import PRIVATE

ATTEMPTS = "attempts.log"
_BEGUN, _HANDED_BACK, _FAILED = "begun", "handed back", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """The attempts at one job.

    Attributes:
        count: attempts that began and were not handed back.
        is_open: whether the last one was not handed back; also true between two attempts.
        has_failed: whether the last one failed and will be repeated.
        code: why the latest failed attempt failed; empty if none did, or its worker died.
    """

    count: int = 0
    is_open: bool = False
    has_failed: bool = False
    code: str = ""


def read(folder: Path) -> Attempts:
    """Read the attempts at a job from its report folder.

    A damaged log counts as none; the queue counts attempts as well.

    Raises:
        OSError: the log exists and cannot be read.
    """
    try:
        return parse(read_bounded(folder / ATTEMPTS, LARGEST_STATE_BYTES))
    except (FileNotFoundError, DamagedFile):
        return Attempts()


def parse(content: bytes) -> Attempts:
    """Return the attempts in a log; lines of another form do not count."""
    lines = content.decode(errors="replace").splitlines()
    marker = f" {_FAILED} "
    failures = [line.partition(marker)[2] for line in lines if marker in line]
    others = [line for line in lines if marker not in line]
    return Attempts(
        count=sum(line.endswith(_BEGUN) for line in lines)
        - sum(line.endswith(_HANDED_BACK) for line in lines),
        is_open=bool(others) and others[-1].endswith(_BEGUN),
        has_failed=bool(lines) and marker in lines[-1],
        code=failures[-1] if failures else "",
    )


def begin(folder: Path) -> None:
    """Record durably that an attempt begins.

    Raises:
        OSError: it cannot be recorded, so the attempt must not begin.
    """
    atomic.make_folder(folder, mode=PRIVATE)
    _set_damaged_aside(folder)
    _append(folder, _BEGUN)
    atomic.sync_folder(folder)


def hand_back(folder: Path) -> None:
    """Record that the attempt was broken off by a stop and does not count.

    Raises:
        OSError: it cannot be recorded.
    """
    _append(folder, _HANDED_BACK)


def fail(folder: Path, code: str) -> None:
    """Record why an attempt failed that will be repeated.

    Args:
        folder: the job's report folder.
        code: stable code of the error.

    Raises:
        OSError: it cannot be recorded.
    """
    _append(folder, f"{_FAILED} {code}")


def _set_damaged_aside(folder: Path) -> None:
    """Make room for a new log if something else has its name."""
    try:
        os.close(open_regular(folder / ATTEMPTS, os.O_RDONLY))
    except FileNotFoundError:
        pass
    except DamagedFile:
        log = folder / ATTEMPTS
        log.rename(folder / f"{ATTEMPTS}.damaged-{secrets.token_hex(4)}")


def _append(folder: Path, event: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = f"{now} {socket.gethostname()} {os.getpid()} {event}\n"
    try:
        descriptor = open_regular(folder / ATTEMPTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except DamagedFile as error:
        raise OSError(str(error)) from None
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
