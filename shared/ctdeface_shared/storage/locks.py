"""Owned folders and locks on shared file systems.

An owner file names host, boot, pid namespace, pid and start of the process, and is touched while
the folder is in use (the heartbeat). A dead owner is recognized immediately where its pid is known
(`process_identity`), which is the same machine and container. Any other folder is abandoned when it
was not touched for the stale time. A folder is created and removed under a temporary name that
contains its creator's id, so an unowned folder never appears.
"""

import errno
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ctdeface_shared import logs
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.storage.bounded import LARGEST_OWNER_BYTES, parse_json, read_bounded
from ctdeface_shared.storage.private_tree import remove_tree
from ctdeface_shared.storage.process_identity import (
    NAME,
    has_ended,
    named_has_ended,
    short_name,
    this_process,
)

OWNER_FILE = ".owner.json"
UNFINISHED = "unfinished.json"
"""No sweep removes a folder with this file, because its content is still needed."""
HEARTBEAT_SECONDS = 20.0
MISSED_HEARTBEATS_SECONDS = 6 * HEARTBEAT_SECONDS
"""The holder of a claim on another machine counts as dead after this time without a heartbeat.

If it lives after all, its work is done twice, which the publishing journal makes harmless.
"""
DAMAGED_SECONDS = 20.0
"""A lock without a valid owner file is free after this time.

It gets its name together with the file, so a lock without one is damaged; its holder notices.
"""
WATCHER_LOCK = "watcher"
"""Name of the lock that the active watcher of an inbox holds."""
_PRIVATE = 0o700
_TAKEOVER_SECONDS = 60.0
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_TEMPORARY = re.compile(rf"\.(?P<creator>{NAME})\.[0-9a-f]{{16}}")
_OWNED = re.compile(r"\.?[0-9a-f]{16}([0-9a-f]{16})?(\.taking)?")
"""Names of owned folders and locks; a folder of any other name is not one of them."""


_log = logs.logger(__name__)
_released: set[str] = set()
"""Tokens of locks that this process released but may not have removed.

Other processes cannot recognize them, because this process still runs.
"""


@contextmanager
def owned_folder(parent: Path, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> Iterator[Path]:
    """Provide a new owned folder with a random name.

    It is removed after the block unless it is marked as unfinished.

    Args:
        parent: where to create it.
        heartbeat_seconds: interval of the heartbeat.
    """
    folder = parent / secrets.token_hex(8)
    with _owned_temporary(parent) as (temporary, token):
        temporary.rename(folder)
        try:
            with _beating(folder, token, heartbeat_seconds):
                yield folder
        finally:
            if not (folder / UNFINISHED).exists():
                remove(folder)


def sweep(parent: Path, *, stale_seconds: float) -> int:
    """Remove abandoned folders and return their number.

    Folders with unfinished content stay, and so do those that cannot be examined or removed.

    Args:
        parent: folder of owned folders or locks.
        stale_seconds: age of the last heartbeat from which a folder of another machine is
            abandoned.
    """
    swept = 0
    for folder in parent.iterdir():
        try:
            swept += _is_swept(folder, stale_seconds)
        except OSError as error:  # the others must not wait for it
            _log.warning("folder_not_swept", code=type(error).__name__)
    return swept


def _is_swept(folder: Path, stale_seconds: float) -> bool:
    """Remove a folder if it is abandoned; return whether it was."""
    is_ours = folder.is_dir() and not folder.is_symlink() and _is_owned_folder(folder)
    if not is_ours or os.path.lexists(folder / UNFINISHED):
        return False
    if not is_abandoned(folder, stale_seconds):
        return False
    remove(folder)
    return True


def _is_owned_folder(folder: Path) -> bool:
    """Return whether a folder is an owned folder or a lock.

    Others may have similar names, such as the kept files of a case whose name is a digest.
    """
    return bool(_TEMPORARY.fullmatch(folder.name)) or (
        bool(_OWNED.fullmatch(folder.name)) and (folder / OWNER_FILE).exists()
    )


@contextmanager
def locked(
    locks: Path,
    name: str,
    *,
    stale_seconds: float,
    wait_seconds: float = 60.0,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> Iterator[Callable[[], bool]]:
    """Hold a lock, taking over an abandoned one.

    A lock is a folder. It is created under a temporary name with its owner file in it and renamed
    into place, because no file system renames a folder over one that is not empty.

    Args:
        locks: folder of the locks.
        name: name of the lock.
        stale_seconds: age of the last heartbeat from which a lock of another machine is abandoned.
        wait_seconds: how long to wait for another holder.
        heartbeat_seconds: interval of the heartbeat.

    Yields:
        A function that returns whether this process still holds the lock. A process that was
        frozen past the stale time may have lost it.

    Raises:
        StorageUnavailable: another process held the lock for longer than `wait_seconds`.
    """
    lock = locks / name
    with _owned_temporary(locks) as (temporary, token):
        _acquire(lock, temporary, stale_seconds, time.monotonic() + wait_seconds)
        try:
            with _beating(lock, token, heartbeat_seconds):
                yield lambda: _is_ours(lock, token)
        finally:
            _released.add(token)  # in case the storage is unavailable now
            holder = _owner_of(lock).get("token")
            if holder == token:  # another process may have taken it over while this one was frozen
                lock.rename(temporary)
            if holder is not None:
                _released.discard(token)


def lock_name(subject: str) -> str:
    """Return the folder name of the lock on a subject.

    Args:
        subject: any text, also with characters that a folder name cannot have.
    """
    return sha256(subject.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def case_lock_name(case: str) -> str:
    """Return the name of a case's lock."""
    return lock_name(case)


def claim_name(job_id: str) -> str:
    """Return the name of a job's lock."""
    return lock_name(f"job {job_id}")


def is_held(lock: Path, stale_seconds: float) -> bool:
    """Return whether a live process holds a lock."""
    return lock.is_dir() and not _is_free(lock, stale_seconds)


def is_claimed(locks: Path, job_id: str) -> bool:
    """Return whether a live worker holds a job."""
    return is_held(locks / claim_name(job_id), MISSED_HEARTBEATS_SECONDS)


def is_abandoned(folder: Path, stale_seconds: float) -> bool:
    """Return whether no live process uses a folder.

    Args:
        folder: an owned folder or a lock.
        stale_seconds: age of the last heartbeat from which a folder counts as abandoned if its
            owner cannot be checked.
    """
    try:
        touched = folder.stat().st_mtime
    except FileNotFoundError:
        return False
    owner: dict[str, Any] = {}
    with suppress(PermissionError):  # another user's: the time of the last heartbeat decides
        owner = _owner_of(folder)
    if owner.get("token") in _released:
        return True
    ended = has_ended(owner)
    temporary = _TEMPORARY.fullmatch(folder.name)
    if ended is None and temporary:  # killed before it wrote its owner file or after it removed it
        ended = named_has_ended(temporary["creator"])
    if ended is not None:
        return ended
    # Owner on another machine or in another container, or a file of another user.
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        touched = max(touched, (folder / OWNER_FILE).lstat().st_mtime)
    return time.time() - touched > stale_seconds


def _is_free(lock: Path, stale_seconds: float) -> bool:
    """Return whether a lock can be taken over: no live process holds it, or it is damaged."""
    is_damaged = False
    with suppress(PermissionError):
        is_damaged = not _owner_of(lock)
    return is_abandoned(lock, min(stale_seconds, DAMAGED_SECONDS) if is_damaged else stale_seconds)


def _acquire(lock: Path, temporary: Path, stale_seconds: float, deadline: float) -> None:
    while True:
        try:
            temporary.rename(lock)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                lock.unlink(missing_ok=True)  # a file or link under this name is not a lock
                continue
            if error.errno not in _TAKEN:
                raise
        else:
            return
        if _is_free(lock, stale_seconds):
            _take_away(lock, stale_seconds)
        elif time.monotonic() > deadline:
            raise StorageUnavailable(
                "another process holds the lock of this case: try again when it has ended"
            )
        else:
            time.sleep(0.05)


def _take_away(lock: Path, stale_seconds: float) -> None:
    """Remove an abandoned lock.

    A guard folder serializes processes that do so, because one could otherwise remove the lock that
    another has just acquired.
    """
    guard = lock.with_name(f".{lock.name}.taking")
    with _owned_temporary(lock.parent) as (temporary, token):
        try:
            temporary.rename(guard)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            if is_abandoned(guard, _TAKEOVER_SECONDS):
                remove(guard)
            time.sleep(0.05)
            return
        try:
            if _is_free(lock, stale_seconds):
                _move_away(lock, guard)
        finally:
            if _owner_of(guard).get("token") == token:
                guard.rename(temporary)


def _move_away(lock: Path, guard: Path) -> None:
    """Move a lock into its guard, or only rename it if it belongs to another user."""
    try:
        lock.rename(guard / lock.name)
    except PermissionError:
        lock.rename(_temporary_name(lock.parent))


@contextmanager
def _owned_temporary(parent: Path) -> Iterator[tuple[Path, str]]:
    """Provide a temporary folder with an owner file.

    It is made to be renamed into place.

    A folder that has the temporary name afterwards is removed.
    """
    temporary = _temporary_name(parent)
    temporary.mkdir(mode=_PRIVATE)
    try:
        yield temporary, _write_owner(temporary)
    finally:
        remove_tree(temporary, is_durable=False)


def _temporary_name(parent: Path) -> Path:
    """Return a temporary name with this process's id.

    It identifies the creator if the process is killed while the folder has no owner file.
    """
    return parent / f".{short_name()}.{secrets.token_hex(8)}"


def remove(folder: Path) -> None:
    """Remove a folder as far as permissions allow.

    It is renamed first, because its owner file may be deleted before the rest.
    """
    temporary = _temporary_name(folder.parent)
    with suppress(OSError):
        folder.rename(temporary)
        remove_tree(temporary, is_durable=False)


@contextmanager
def _beating(folder: Path, token: str, seconds: float) -> Iterator[None]:
    """Touch the owner file regularly while it is ours."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            # Storage that became unavailable may return; the work in the folder meets the error
            # itself.
            with suppress(OSError):
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
    """Return whether this token still owns a folder.

    It counts as ours while the storage cannot be read or is not mounted.
    """
    try:
        return bool(_owner_of(folder).get("token") == token) or not folder.parent.exists()
    except OSError:
        return True


def _owner_of(folder: Path) -> dict[str, Any]:
    """Return the owner of a folder; empty if the file is missing or damaged."""
    try:
        owner = parse_json(read_bounded(folder / OWNER_FILE, LARGEST_OWNER_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    if not isinstance(owner, dict) or not isinstance(owner.get("token", ""), str):
        return {}
    return owner
