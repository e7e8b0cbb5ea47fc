"""Atomic, durable writing.

A crash or power cut leaves the old or the new state.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.storage.tree import walk_tree

_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS})


def write_file(path: Path, content: bytes, *, mode: int = 0o600, is_durable: bool = True) -> None:
    """Replace a file atomically.

    A temporary file is written, fsynced and renamed, and the folder is fsynced.

    Args:
        path: the file.
        content: its new content.
        mode: mode of the file, independent of the umask.
        is_durable: False skips the fsync, so that the file may be lost in a power cut.
    """
    with _replacing(path, mode, is_durable=is_durable) as stream:
        stream.write(content)


def copy_file(source: Path, path: Path, *, mode: int = 0o600) -> None:
    """Copy a file atomically, like `write_file`."""
    with source.open("rb") as content, _replacing(path, mode) as stream:
        shutil.copyfileobj(content, stream)


@contextmanager
def _replacing(path: Path, mode: int, *, is_durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a stream whose content replaces a file afterwards.

    If the block fails, the file stays as it was.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # independent of the umask
            yield stream
            stream.flush()
            if is_durable:
                os.fsync(stream.fileno())
        _replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if is_durable:
        sync_folder(path.parent)


def _replace(beside: Path, path: Path) -> None:
    """Rename a file over another one; a folder of that name is set aside first."""
    try:
        beside.replace(path)
    except IsADirectoryError:
        path.rename(path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))
        beside.replace(path)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder and everything below it durable (fsync)."""
    for parent, entries in walk_tree(folder, _raise):
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                _sync_file(Path(entry.path))
        sync_folder(Path(parent))


def _raise(error: OSError) -> None:
    raise error


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, mode: int) -> None:
    """Create a folder and its missing parents durably.

    Args:
        path: the folder; nothing happens if it exists.
        mode: mode of the created folders, independent of the umask.
    """
    if path.is_dir():
        return
    make_folder(path.parent, mode=mode)
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(mode)
    sync_folder(path.parent)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn errors of full or lost storage into `StorageUnavailable`.

    Raises:
        StorageUnavailable: the disk is full, the quota reached, or the file system gone or
            read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _STORAGE_ERRORS:
            raise StorageUnavailable(f"storage failed: {error.strerror}") from error
        raise
