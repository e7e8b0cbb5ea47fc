"""Folders of other users, made private to the service.

Their owners may rename, link and replace anything in them at any moment, also after the folder was
moved, through a folder that they still hold open. So everything is reached by descriptors relative
to an open folder, links are never followed, and what is kept is a copy that only the service can
reach. A tree that belongs to the service alone is sealed by its modes instead.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from ctdeface_shared.errors import ChangedMeanwhile, UnsafeDrop
from ctdeface_shared.storage.checksum import FileDigest, digest_of_rows
from ctdeface_shared.storage.tree_limits import TreeLimits

_BLOCK = 1 << 20
_LEVELS_REMOVED = 64
"""Folders that are open at a time during a removal."""
_REMOVAL_SECONDS = 10.0
"""What is not removed within this time is left for a later sweep, so that nothing waits for it."""
_MOST_NAMES = 1_000_000
"""Names that one folder of a drop may hold; their list takes about 100 MB."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = _READ | os.O_DIRECTORY
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CLONE = 0x40049409
"""FICLONE of Linux: share the content of a file where the file system can."""


@dataclass(slots=True, kw_only=True)
class _Count:
    """What was found so far, against the limits."""

    limits: TreeLimits
    files: int = 0
    folders: int = 0
    bytes: int = 0

    def add_folder(self) -> None:
        self.folders += 1
        if self.folders > self.limits.files:
            raise UnsafeDrop(
                f"the drop holds more than {self.limits.files} folders, which limits.files allows: "
                "split it into several cases, or raise the limit"
            )

    def add(self, name: str, size: int) -> None:
        limits = self.limits
        self.files += 1
        self.bytes += size
        if self.files > limits.files:
            raise UnsafeDrop(
                f"the drop holds more than {limits.files} files, which limits.files allows: "
                "split it into several cases, or raise the limit"
            )
        _require_size(name, size, limits)
        if self.bytes > limits.bytes:
            raise UnsafeDrop(
                f"the drop holds more than the {limits.bytes / 1e9:g} GB that limits.case_gb "
                "allows: split it into several cases, or raise the limit"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A regular file below an open folder."""

    name: str
    folder: int
    leaf: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class _Owners:
    """Whose files a drop may hold: its owner's, the service's and the administrator's."""

    drop: int
    device: int

    def check(self, name: str, status: os.stat_result) -> None:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is not None:
            raise UnsafeDrop(
                f"the drop holds {kind}, {shown(name)}, and only files and folders are allowed: "
                "put the file itself there and drop the case again"
            )
        if status.st_uid not in {self.drop, os.geteuid(), 0}:
            raise UnsafeDrop(
                f"{shown(name)} belongs to user {status.st_uid}, and everything in a drop must "
                f"belong to its owner, user {self.drop}: copy the files and drop the case again"
            )
        if status.st_dev != self.device:
            raise UnsafeDrop(
                f"{shown(name)} is on another file system than its case: copy the files into "
                "the case"
            )
        if status.st_nlink > 1 and stat.S_ISREG(status.st_mode) and status.st_uid != self.drop:
            raise UnsafeDrop(
                f"{shown(name)} is a hard link to a file of user {status.st_uid}: copy the file "
                "and drop the case again"
            )


@contextmanager
def opened(path: str | Path, flags: int = _FOLDER, *, folder: int | None = None) -> Iterator[int]:
    """Open a file or folder without following a link at its end.

    Args:
        path: where it is.
        flags: for `os.open`; a folder by default.
        folder: descriptor that the path is relative to.

    Raises:
        UnsafeDrop: it is a link, or a file where a folder was expected.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            raise UnsafeDrop(
                f"{shown(Path(path).name)} was replaced while it was read: drop the case again"
            ) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_own(tree: int, depth: int) -> bool:
    """Return True if a tree belongs to the service user alone, with no link to it elsewhere.

    Args:
        tree: descriptor of the folder.
        depth: levels of folders to look at; a deeper tree does not count as its own.

    Raises:
        UnsafeDrop: something in it is replaced meanwhile.
        OSError: it cannot be read.
    """
    if depth < 0 or not _is_ours_alone(os.fstat(tree)):
        return False
    for name in _names(tree):
        one = os.stat(name, dir_fd=tree, follow_symlinks=False)
        if stat.S_ISDIR(one.st_mode):
            with opened(name, folder=tree) as below:
                if not is_own(below, depth - 1):
                    return False
        elif one.st_nlink > 1 or not _is_ours_alone(one):
            return False
    return True


def _is_ours_alone(status: os.stat_result) -> bool:
    """Return True if only the service user may change a file or folder."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def seal(
    tree: int, limits: TreeLimits, on_file: Callable[[], None] = lambda: None
) -> list[FileDigest]:
    """Take all rights of others from a tree of the service user, and read its files.

    Args:
        tree: descriptor of the folder.
        limits: how much it may hold.
        on_file: called before each file is read; may raise an error that ends it.

    Returns:
        Every file, in the order of reading.

    Raises:
        UnsafeDrop: it holds something else than files and folders, or too much.
        OSError: it cannot be read.
    """
    digests = []
    for file in _files(tree, limits, seals=True):
        on_file()
        with opened(file.leaf, _READ, folder=file.folder) as source:
            os.fchmod(source, 0o600)
            digests.append(_copied(file, source, None, limits))
    return digests


def read_tree(tree: int, limits: TreeLimits) -> list[FileDigest]:
    """Read the files of a tree that others may change.

    Args:
        tree: descriptor of the folder.
        limits: how much it may hold.

    Returns:
        Every file, in the order of reading.

    Raises:
        UnsafeDrop: it holds something else than the files of its owner, or too much.
        OSError: it cannot be read, or changes meanwhile.
    """
    digests = []
    for file in _files(tree, limits):
        with _opened_file(file) as source:
            digests.append(_copied(file, source, None, limits))
    return digests


def copy_tree(
    tree: int, target: Path, limits: TreeLimits, on_file: Callable[[], None] = lambda: None
) -> list[FileDigest]:
    """Copy a tree into a new private folder, and read its files on the way.

    Names and times of files are kept; where the file system can, the content is shared.

    Args:
        tree: descriptor of the folder.
        target: folder to create; its parent is private.
        limits: how much the tree may hold.
        on_file: called before each file is copied; may raise an error that ends it.

    Returns:
        Every file, in the order of reading.

    Raises:
        UnsafeDrop: it holds something else than the files of its owner, or too much.
        OSError: it cannot be read or written, or changes meanwhile.
    """
    target.mkdir(mode=0o700)
    digests = []
    for file in _files(tree, limits):
        on_file()
        path = target / file.name
        _make_private(path.parent)
        digests.append(_copy(file, path, limits))
    return digests


def _make_private(folder: Path) -> None:
    """Create a folder and its missing parents; `mkdir` would open the parents to others."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700)


def copy_file(
    folder: int,
    leaf: str,
    target: Path,
    limits: TreeLimits,
    status: os.stat_result | None = None,
) -> FileDigest:
    """Copy one regular file into a private folder.

    Args:
        folder: descriptor of the folder that holds it.
        leaf: its name in that folder.
        target: file to create.
        limits: how large it may be.
        status: of the file that is meant; of the present one by default.

    Raises:
        UnsafeDrop: it is not a regular file, or is too large.
        ChangedMeanwhile: it was changed, or replaced by another file.
        OSError: it cannot be read or written.
    """
    status = status or os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    _Owners(status.st_uid, status.st_dev).check(leaf, status)
    return _copy(_File(name=leaf, folder=folder, leaf=leaf, status=status), target, limits)


def _copy(file: _File, target: Path, limits: TreeLimits) -> FileDigest:
    """Copy the file that was listed, and no other that has taken its name since."""
    status = file.status
    with _opened_file(file) as source, target.open("x+b") as copy:
        os.fchmod(copy.fileno(), 0o600)
        digest = _copied(file, source, copy.fileno(), limits)
        with suppress(OSError, OverflowError):  # the owner may have set an absurd time
            os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(copy.fileno())
        _require_listed(file, source)
    return digest


@contextmanager
def _opened_file(file: _File) -> Iterator[int]:
    """Open a file that was listed, whose owner and size were checked.

    Raises:
        UnsafeDrop: it was replaced by something else than a file.
        ChangedMeanwhile: it was changed, or replaced by another file.
    """
    with opened(file.leaf, _READ, folder=file.folder) as source:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise UnsafeDrop(f"{shown(file.name)} was replaced by a folder: drop it again")
        _require_listed(file, source)
        yield source


def _require_listed(file: _File, source: int) -> None:
    """Check that an open file is the one that was listed.

    Raises:
        ChangedMeanwhile: it is not.
    """
    if _state_of(os.fstat(source)) != _state_of(file.status):
        raise ChangedMeanwhile(f"{shown(file.name)} was changed while it was read")


class TreeStats(NamedTuple):
    """The state of a tree without its content.

    Attributes:
        digest: changes with every file that is changed, added or replaced.
        bytes: size of all files.
    """

    digest: str
    bytes: int


def stats_of(tree: int, limits: TreeLimits) -> TreeStats:
    """Return the state of a tree that others may change.

    The digest is that of `manifest.digest_of_stats`.

    Raises:
        UnsafeDrop: it holds something else than the files of its owner, or too much.
        OSError: it cannot be read.
    """
    rows = [(file.name, file.status) for file in _files(tree, limits)]
    return TreeStats(digest_of_rows(rows), sum(status.st_size for _, status in rows))


def stats_of_entry(folder: int, leaf: str, limits: TreeLimits) -> str:
    """Return the digest of `stats_of` for a tree or a file in an open folder.

    Raises:
        UnsafeDrop: it holds something else than the files of its owner, or too much.
        OSError: it cannot be read.
    """
    status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return digest_of_rows([(leaf, status)])
    with opened(leaf, folder=folder) as tree:
        return stats_of(tree, limits).digest


def require_readable(folder: int, leaf: str, depth: int) -> None:
    """Check that a tree or file in an open folder can be read.

    Args:
        folder: descriptor of the open folder.
        leaf: name of the tree or file in it.
        depth: levels of folders to look at.

    Raises:
        PermissionError: it cannot be read.
        UnsafeDrop: it is replaced meanwhile.
        OSError: it is gone.
    """
    status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode) and not os.access(
        leaf, os.R_OK, dir_fd=folder, effective_ids=True, follow_symlinks=False
    ):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if stat.S_ISDIR(status.st_mode) and depth >= 0:
        with opened(leaf, folder=folder) as tree:
            for name in _names(tree):
                require_readable(tree, name, depth - 1)


def is_removable(folder: int, leaf: str, depth: int) -> bool:
    """Return True if this user may remove all that a tree or file in an open folder holds.

    Args:
        folder: descriptor of the open folder.
        leaf: name of the tree or file in it.
        depth: levels of folders to look at.

    Raises:
        UnsafeDrop: it is replaced meanwhile.
        OSError: it is gone, or cannot be read.
    """
    status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or depth < 0:
        return True
    if status.st_uid != os.geteuid() and not os.access(
        leaf, os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True, follow_symlinks=False
    ):
        return False
    with opened(leaf, folder=folder) as tree:
        with os.scandir(tree) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return all(is_removable(tree, name, depth - 1) for name in names)


def shown(name: str) -> str:
    """Return a name for a message, with control characters and broken bytes escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in name
    )


def remove_tree(path: Path, *, is_durable: bool = True) -> bool:
    """Remove a tree as far as permissions and time allow; return whether nothing is left.

    Others may still change it, so it is walked like one that is copied, and for some seconds only.

    Args:
        path: a folder of any depth, or a file.
        is_durable: False skips the fsync of the folder that holds it.
    """
    with suppress(OSError, UnsafeDrop), opened(path.parent) as parent:
        ends_at = monotonic() + _REMOVAL_SECONDS
        removal = _Removal(parent=parent, waiting=[path.name], ends_at=ends_at)
        while removal.waiting and monotonic() < ends_at:
            with suppress(OSError, UnsafeDrop):
                _remove(removal, parent, removal.waiting.pop(), _LEVELS_REMOVED)
        if is_durable:
            os.fsync(parent)
    return not os.path.lexists(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Removal:
    """A removal of any depth with few open folders.

    Attributes:
        parent: descriptor of the folder that holds the tree; what is too deep is moved here.
        waiting: names in it that are still to be removed.
        ends_at: when the removal gives up, monotonic seconds.
    """

    parent: int
    waiting: list[str]
    ends_at: float


def _remove(removal: _Removal, folder: int, leaf: str, levels: int) -> None:
    """Remove a file or folder; a folder below the last level is moved up and waits."""
    if not stat.S_ISDIR(os.stat(leaf, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(leaf, dir_fd=folder)
        return
    if levels == 0:
        higher = f".{secrets.token_hex(16)}"
        os.rename(leaf, higher, src_dir_fd=folder, dst_dir_fd=removal.parent)
        removal.waiting.append(higher)
        return
    with opened(leaf, folder=folder) as tree:
        for name in _names(tree):
            if monotonic() > removal.ends_at:
                return
            with suppress(OSError, UnsafeDrop):  # the others are removed nevertheless
                _remove(removal, tree, name, levels - 1)
    os.rmdir(leaf, dir_fd=folder)


def _names(tree: int) -> list[str]:
    """List an open folder.

    Raises:
        UnsafeDrop: it holds too many names.
    """
    with os.scandir(tree) as entries:
        names = [entry.name for entry in islice(entries, _MOST_NAMES + 1)]
    if len(names) > _MOST_NAMES:
        raise UnsafeDrop(
            f"a folder of the drop holds more than {_MOST_NAMES} names: split it into several cases"
        )
    return names


def _state_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells whether a file was changed, or another one has taken its place."""
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_uid, status.st_size, *times)


def _files(tree: int, limits: TreeLimits, *, seals: bool = False) -> Iterator[_File]:
    """Yield every file below a folder that passes the rules, each while its folder is open."""
    top = os.fstat(tree)
    owners, count = _Owners(top.st_uid, top.st_dev), _Count(limits=limits)
    yield from _files_in(tree, "", owners, count, seals=seals)


def _files_in(
    tree: int, prefix: str, owners: _Owners, count: _Count, *, seals: bool
) -> Iterator[_File]:
    if seals:
        os.fchmod(tree, 0o700)
    if prefix.count("/") > count.limits.depth:
        raise UnsafeDrop(
            f"the drop nests more than {count.limits.depth} levels of folders, which limits.depth "
            "allows: drop the folder that holds the images"
        )
    for leaf in sorted(_names(tree)):
        name = f"{prefix}{leaf}"
        if len(os.fsencode(name)) > count.limits.path_bytes:
            raise UnsafeDrop(
                f"a path in the drop has more than {count.limits.path_bytes} bytes, which "
                "limits.path_bytes allows: use shorter names"
            )
        status = os.stat(leaf, dir_fd=tree, follow_symlinks=False)
        owners.check(name, status)
        if stat.S_ISDIR(status.st_mode):
            count.add_folder()
            with opened(leaf, folder=tree) as below:
                owners.check(name, os.fstat(below))
                yield from _files_in(below, f"{name}/", owners, count, seals=seals)
        else:
            count.add(name, status.st_size)
            yield _File(name=name, folder=tree, leaf=leaf, status=status)


def _require_size(name: str, size: int, limits: TreeLimits) -> None:
    """Check the size of one file.

    Raises:
        UnsafeDrop: it is larger than the limit.
    """
    if size > limits.file_bytes:
        raise UnsafeDrop(
            f"{shown(name)} has {size / 1e9:.3g} GB, and limits.file_gb allows "
            f"{limits.file_bytes / 1e9:g} GB: remove it, or raise the limit"
        )


def _copied(file: _File, source: int, target: int | None, limits: TreeLimits) -> FileDigest:
    """Read a file through a descriptor, and write it to another one if there is one.

    Raises:
        UnsafeDrop: it is larger than the limit.
        ChangedMeanwhile: it grew.
    """
    _require_size(file.name, file.status.st_size, limits)
    is_shared = target is not None and _is_shared(source, target)
    reads = target if target is not None and is_shared else source
    digest, size = sha256(), 0
    while block := os.read(reads, _BLOCK):
        size += len(block)
        if size > file.status.st_size:
            raise ChangedMeanwhile(f"{shown(file.name)} grew while it was read")
        digest.update(block)
        if target is not None and not is_shared:
            view = memoryview(block)
            while view:
                view = view[os.write(target, view) :]
    return FileDigest(file.name, size, digest.hexdigest())


def _is_shared(source: int, target: int) -> bool:
    """Let a new file share the content of another one; return whether it does."""
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError:
        return False
    os.lseek(target, 0, os.SEEK_SET)
    return True
