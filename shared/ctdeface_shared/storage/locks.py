"""Who works with a temporary folder or holds a lock, on one machine or on many that share a file system.

An owner file says host, boot, pid namespace, pid and start of the process, and is touched while the
folder is in use. A dead owner is known at once only where its pid means something (`process`).
Everybody else's folder is abandoned when nobody touched it for the stale time. A folder gets its
owner file and loses it under a name that says who its maker is, so that none is ever without.
"""

import errno
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.storage.process_identity import (
    NAME,
    has_ended,
    named_has_ended,
    short_name,
    this_process,
)

OWNER_FILE = ".owner.json"
UNFINISHED = "unfinished.json"
"""A folder with this file outlives its owner: what is in it is still wanted, and no sweep removes it."""
HEARTBEAT_SECONDS = 20.0
MISSED_HEARTBEATS_SECONDS = 6 * HEARTBEAT_SECONDS
"""The holder of a claim on another machine counts as dead after this time without a heartbeat.

If it lives after all, its work is done twice, which the publishing journal makes harmless.
"""
WATCHER_LOCK = "watcher"
"""Name of the lock that the active watcher of an inbox holds."""
_PRIVATE = 0o700
_TAKEOVER_SECONDS = 60.0
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_ASIDE = re.compile(rf"\.(?P<maker>{NAME})\.[0-9a-f]{{16}}")
_SIGNED = re.compile(r"\.?[0-9a-f]{16}([0-9a-f]{16})?(\.taking)?")
"""Names that owned folders and locks have, beside their owner file; any other folder is somebody else's, even in a folder of ours."""


_left: set[str] = set()
"""Tokens of locks that this process has let go of and may not have removed; nobody else can tell, as it lives on."""


@contextmanager
def owned_folder(parent: Path, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> Iterator[Path]:
    """Give a new folder of a random name that says who owns it, and remove it afterwards unless it is marked as unfinished."""
    folder = parent / secrets.token_hex(8)
    with _signed_aside(parent) as (aside, token):
        aside.rename(folder)
        try:
            with _beating(folder, token, heartbeat_seconds):
                yield folder
        finally:
            if not (folder / UNFINISHED).exists():
                remove(folder)


def sweep(parent: Path, *, stale_seconds: float) -> int:
    """Remove abandoned folders that hold nothing unfinished; return how many."""
    swept = 0
    for folder in parent.iterdir():
        ours = folder.is_dir() and not folder.is_symlink() and _is_our_make(folder)
        if ours and not (folder / UNFINISHED).exists() and is_abandoned(folder, stale_seconds):
            remove(folder)
            swept += 1
    return swept


def _is_our_make(folder: Path) -> bool:
    """Tell an owned folder or lock from one that somebody named alike, such as the kept files of a case with a digest for its name."""
    return bool(_ASIDE.fullmatch(folder.name)) or (
        bool(_SIGNED.fullmatch(folder.name)) and (folder / OWNER_FILE).exists()
    )


@contextmanager
def locked(
    locks: Path,
    name: str,
    *,
    stale_seconds: float,
    patience_seconds: float = 60.0,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> Iterator[Callable[[], bool]]:
    """Hold a lock, which is a folder, taking over one whose owner is gone.

    The folder is made aside with its owner in it and renamed into place: no file system renames a
        folder over one that is not empty.

    Yields:
        Tells whether the lock is still ours: a process that was frozen past the stale time may have
            lost it.

    Raises:
        StorageUnavailable: somebody else holds the lock for longer than our patience.
    """
    lock = locks / name
    with _signed_aside(locks) as (aside, token):
        _acquire(lock, aside, stale_seconds, time.monotonic() + patience_seconds)
        try:
            with _beating(lock, token, heartbeat_seconds):
                yield lambda: _is_ours(lock, token)
        finally:
            _left.add(token)  # in case that storage is away just now
            holder = _owner_of(lock).get("token")
            if holder == token:  # somebody may have taken it over while this process was frozen
                lock.rename(aside)
            if holder is not None:
                _left.discard(token)


def lock_name(subject: str) -> str:
    """Return the folder name of the lock on a subject.

    Args:
        subject: any text, also with characters that a folder name cannot have.
    """
    return sha256(subject.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def case_lock_name(case: str) -> str:
    """Return the name of the lock that guards a case's output."""
    return lock_name(case)


def claim_name(job_id: str) -> str:
    """Return the name of the lock that the worker of a job holds."""
    return lock_name(f"job {job_id}")


def is_held(lock: Path, stale_seconds: float) -> bool:
    """Return whether a live process holds a lock."""
    return lock.is_dir() and not is_abandoned(lock, stale_seconds)


def is_claimed(locks: Path, job_id: str) -> bool:
    """Return whether a live worker holds a job."""
    return is_held(locks / claim_name(job_id), MISSED_HEARTBEATS_SECONDS)


def is_abandoned(folder: Path, stale_seconds: float) -> bool:
    """Whether nobody works with a folder any more; in doubt somebody does, until it is stale."""
    try:
        touched = folder.stat().st_mtime
    except FileNotFoundError:
        return False
    owner = _owner_of(folder)
    if owner.get("token") in _left:
        return True
    ended = has_ended(owner)
    aside = _ASIDE.fullmatch(folder.name)
    if ended is None and aside:  # killed before it wrote its owner file, or after it had removed it
        ended = named_has_ended(aside["maker"])
    if ended is not None:
        return ended
    with suppress(FileNotFoundError):  # of another machine or container
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
            raise StorageUnavailable("another process holds the lock of this case")
        else:
            time.sleep(0.05)


def _take_away(lock: Path, stale_seconds: float) -> None:
    """Remove an abandoned lock; a guard folder keeps two takers apart, so that none removes what another has just acquired."""
    guard = lock.with_name(f".{lock.name}.taking")
    with _signed_aside(lock.parent) as (aside, token):
        try:
            aside.rename(guard)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            if is_abandoned(guard, _TAKEOVER_SECONDS):
                remove(guard)
            time.sleep(0.05)
            return
        try:
            if is_abandoned(lock, stale_seconds):
                lock.rename(guard / lock.name)
        finally:
            if _owner_of(guard).get("token") == token:
                guard.rename(aside)


@contextmanager
def _signed_aside(parent: Path) -> Iterator[tuple[Path, str]]:
    """Make a folder aside with its owner in it, for renaming into place, and remove whatever has that name afterwards."""
    aside = _aside(parent)
    aside.mkdir(mode=_PRIVATE)
    try:
        yield aside, _write_owner(aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(parent: Path) -> Path:
    """A name of its own that says whose it is, in case we are killed while the folder has no owner file."""
    return parent / f".{short_name()}.{secrets.token_hex(8)}"


def remove(folder: Path) -> None:
    """Remove a folder as far as we may, under a name of our own, because its owner file may go before the rest."""
    aside = _aside(folder.parent)
    with suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _beating(folder: Path, token: str, seconds: float) -> Iterator[None]:
    """Touch the owner file every few seconds for the time of the block, as long as it is ours."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            with suppress(
                OSError
                # storage that went away may come back; whoever works in the folder meets the error
                # itself
            ):
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
    (folder / OWNER_FILE).write_text(
        json.dumps({**this_process(), "token": token}), encoding="utf-8"
    )
    return token


def _is_ours(folder: Path, token: str) -> bool:
    """Whether a folder has still the owner that we wrote; storage that cannot tell, or is not mounted, changes nothing."""
    try:
        return bool(_owner_of(folder).get("token") == token) or not folder.parent.exists()
    except OSError:
        return True


def _owner_of(folder: Path) -> dict[str, Any]:
    try:
        owner = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}
