"""Who works with a temporary folder or holds a lock, on one machine or on many that share a file system.

An owner file says host, boot, pid namespace, pid and start of the process, and is touched while the folder is in use. A dead owner is
known at once only where its pid means something: on the same host, boot and pid namespace (containers share a boot but count their
own pids). Everybody else's folder is abandoned when nobody touched it for the stale time.
"""

import errno
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ctdeface_shared.errors import StorageUnavailable

OWNER_FILE = ".owner.json"
UNFINISHED = "unfinished.json"
"""A folder with this file outlives its owner: what is in it is still wanted, and no sweep removes it."""
HEARTBEAT_SECONDS = 20.0
_PRIVATE = 0o700
_TAKEOVER_SECONDS = 60.0
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_OURS = re.compile(r"\.?[0-9a-f]{16}([0-9a-f]{16})?(\.taking)?")
"""Names that owned folders and locks have; a folder of any other name is somebody else's, even in a folder of ours."""


@contextmanager
def owned_folder(parent: Path, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> Iterator[Path]:
    """Give a new folder of a random name that says who owns it, and remove it afterwards unless it is marked as unfinished."""
    folder = parent / secrets.token_hex(8)
    folder.mkdir(mode=_PRIVATE)
    try:
        token = _write_owner(folder)
        with _beating(folder, token, heartbeat_seconds):
            yield folder
    finally:
        if not (folder / UNFINISHED).exists():
            shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path, *, stale_seconds: float) -> int:
    """Remove abandoned folders that hold nothing unfinished; return how many."""
    swept = 0
    for folder in parent.iterdir():
        ours = _OURS.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
        if ours and not (folder / UNFINISHED).exists() and is_abandoned(folder, stale_seconds):
            shutil.rmtree(folder, ignore_errors=True)
            swept += 1
    return swept


@contextmanager
def locked(
    locks: Path, name: str, *, stale_seconds: float, patience_seconds: float = 60.0, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> Iterator[Callable[[], bool]]:
    """Hold a lock, which is a folder, taking over one whose owner is gone.

    The folder is made aside with its owner in it and renamed into place: no file system renames a folder over one that is not empty.

    Yields:
        Tells whether the lock is still ours: a process that was frozen past the stale time may have lost it.

    Raises:
        StorageUnavailable: somebody else holds the lock for longer than our patience.
    """
    lock, aside = locks / name, locks / f".{secrets.token_hex(8)}"
    aside.mkdir(mode=_PRIVATE)
    try:
        token = _write_owner(aside)
        _acquire(lock, aside, stale_seconds, time.monotonic() + patience_seconds)
        try:
            with _beating(lock, token, heartbeat_seconds):
                yield lambda: _is_ours(lock, token)
        finally:
            if _owner_of(lock).get("token") == token:  # somebody may have taken it over while this process was frozen
                lock.rename(aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def claim_name(job_id: str) -> str:
    """Name of the lock that the worker of a job holds; job ids are not trusted as names."""
    return sha256(f"job {job_id}".encode()).hexdigest()[:32]


def is_abandoned(folder: Path, stale_seconds: float) -> bool:
    """Whether nobody works with a folder any more; in doubt somebody does, until it is stale."""
    try:
        touched = folder.stat().st_mtime
    except FileNotFoundError:
        return False
    owner = _owner_of(folder)
    if owner and all(owner.get(key) == value for key, value in _here().items()) and isinstance(owner.get("pid"), int):
        return bool(owner.get("started") != _start_of(owner["pid"]))
    with suppress(FileNotFoundError):  # killed before it wrote its owner file: judge by the folder's age
        touched = max(touched, (folder / OWNER_FILE).stat().st_mtime)
    return time.time() - touched > stale_seconds


def _acquire(lock: Path, aside: Path, stale_seconds: float, deadline: float) -> None:
    while True:
        try:
            aside.rename(lock)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return
        if is_abandoned(lock, stale_seconds):
            _take_away(lock, stale_seconds)
        elif time.monotonic() > deadline:
            message = "another process holds the lock of this case"
            raise StorageUnavailable(message)
        else:
            time.sleep(0.05)


def _take_away(lock: Path, stale_seconds: float) -> None:
    """Remove an abandoned lock; a guard folder keeps two takers apart, so that none removes what another has just acquired."""
    guard = lock.with_name(f".{lock.name}.taking")
    try:
        guard.mkdir(mode=_PRIVATE)
    except FileExistsError:
        if is_abandoned(guard, _TAKEOVER_SECONDS):
            shutil.rmtree(guard, ignore_errors=True)
        time.sleep(0.05)
        return
    try:
        if is_abandoned(lock, stale_seconds):
            lock.rename(guard / lock.name)
    finally:
        shutil.rmtree(guard, ignore_errors=True)


@contextmanager
def _beating(folder: Path, token: str, seconds: float) -> Iterator[None]:
    """Touch the owner file every few seconds for the time of the block, as long as it is ours."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            with suppress(OSError):  # storage that went away may come back; whoever works in the folder meets the error itself
                if _is_ours(folder, token):
                    os.utime(folder / OWNER_FILE)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write_owner(folder: Path) -> str:
    token = secrets.token_hex(8)
    owner = {**_here(), "pid": os.getpid(), "started": _start_of(os.getpid()), "token": token}
    (folder / OWNER_FILE).write_text(json.dumps(owner), encoding="utf-8")
    return token


def _is_ours(folder: Path, token: str) -> bool:
    """Whether a folder has still the owner that we wrote; storage that cannot tell changes nothing."""
    try:
        return bool(_owner_of(folder).get("token") == token)
    except OSError:
        return True


def _owner_of(folder: Path) -> dict[str, Any]:
    try:
        owner = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _here() -> dict[str, str]:
    """Where a pid means something: this host name, boot and pid namespace."""
    return {"host": socket.gethostname(), "boot": _boot_id(), "pids": _pid_namespace()}


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process of this machine began, as an opaque text; empty when there is none, so that a reused pid is no confusion."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "" if Path("/proc/self").exists() else str(pid)
