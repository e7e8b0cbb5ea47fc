"""Detection of network file systems.

SQLite is reliable only on a local disk, where locks and shared memory work.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError

NETWORK_KINDS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs",
    "fuse.ceph", "fuse.davfs2", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
})  # fmt: skip
"""File systems that several machines can share, as named by the third field of /proc/mounts."""

_MOUNTS = Path("/proc/self/mounts")


def require_local(folder: Path) -> None:
    """Refuse a folder on a network file system.

    Only Linux can detect one.

    Raises:
        ConfigurationError: it is on a network file system.
    """
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return  # not Linux; the documentation says that a local disk is required
    kind = kind_of(folder.resolve(), mounts)
    if kind in NETWORK_KINDS:
        raise ConfigurationError(
            f"{folder} is on a network file system ({kind}), where SQLite can lose data; "
            "a local disk is required: set spool.state_dir to a folder on one"
        )


def kind_of(path: Path, mounts: Iterable[str]) -> str:
    """Return the kind of file system that holds a path.

    Args:
        path: absolute, without symbolic links.
        mounts: lines of /proc/mounts (device, mount point, kind, …); later lines hide earlier ones
            at the same mount point.
    """
    deepest, kind = -1, ""
    for line in mounts:
        fields = line.split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, kind = len(point.parts), fields[2]
    return kind
