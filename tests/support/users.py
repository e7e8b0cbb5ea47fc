"""Run commands and steps of a test as real users of one machine; only root can.

    python -m tests.support.users UID COMMAND …

The service's user and two people who drop are in one group. Each command runs in a mount namespace
of its own, in which interpreter and checkout can be reached even where a parent folder is private.
"""

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.required import missing

ROOT = Path(__file__).resolve().parents[2]
GROUP = 61000
"""The group of all three users."""
NOT_ROOT = "only root can run the service and those who attack it as different users"
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 4096, 16384, 1 << 18
_MNT_DETACH = 2


@dataclass(frozen=True, slots=True)
class User:
    """A user of the machine, with the common group.

    Attributes:
        uid: the user's number; the account itself need not exist.
    """

    uid: int

    def command(self, *command: str) -> tuple[str, ...]:
        """Return the command line that runs a command as this user."""
        return (sys.executable, "-m", "tests.support.users", str(self.uid), *command)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Do the file operations of this process as this user for the time of the block.

        Modules must be imported before: this user may not be able to read them.
        """
        groups, umask = os.getgroups(), os.umask(0o022)
        os.setgroups([GROUP])
        os.setegid(GROUP)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
            os.umask(umask)


SERVICE, BEN, CLARA = User(61001), User(61002), User(61003)
"""The user of watcher and worker, and two people who drop."""


def require_users() -> None:
    """Skip the test without root, or fail it in CI."""
    if os.geteuid() != 0:
        missing(NOT_ROOT)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Provide a temporary folder that all users can traverse and only root can change."""
    from shutil import rmtree

    folder = Path(tempfile.mkdtemp(prefix="ctdeface-users-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def give(path: Path, user: User, mode: int, *, make: bool = False) -> Path:
    """Give a file or folder to a user; a folder may be created first."""
    if make:
        path.mkdir()
    os.chown(path, user.uid, GROUP)
    path.chmod(mode)
    return path


def environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a user's command."""
    return {**os.environ, "HOME": str(home), **more}


def main() -> None:
    """Become the user and replace this process by the command."""
    uid, *command = sys.argv[1:]
    _open_private_parents()
    os.setgroups([GROUP])
    os.setresgid(GROUP, GROUP, GROUP)
    os.setresuid(int(uid), int(uid), int(uid))
    os.umask(0o022)
    os.execvp(command[0], command)  # noqa: S606  the caller names the command


def _open_private_parents() -> None:
    """Make interpreter and checkout reachable for other users, in this process only.

    Raises:
        OSError: the system allows no mounts.
    """
    _call("unshare", _CLONE_NEWNS)
    _mount(b"none", Path("/"), None, _MS_REC | _MS_PRIVATE)
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT}
    private = {folder: outermost for folder in needed if (outermost := _private_parent(folder))}
    aside = {folder: Path(tempfile.mkdtemp(prefix="ctdeface-aside-")) for folder in private}
    for folder, place in aside.items():
        _mount(os.fsencode(folder), place, None, _MS_BIND | _MS_REC)
    for outermost in set(private.values()):
        _mount(b"tmpfs", outermost, b"tmpfs", 0, b"mode=0755")
    for folder, place in aside.items():
        folder.mkdir(parents=True, exist_ok=True)
        _mount(os.fsencode(place), folder, None, _MS_BIND | _MS_REC)
        _call("umount2", os.fsencode(place), _MNT_DETACH)
        place.rmdir()
    os.chdir(ROOT)


def _private_parent(folder: Path) -> Path | None:
    """Return the outermost folder above that others may not traverse."""
    return next((one for one in reversed(folder.parents) if not one.stat().st_mode & 0o001), None)


def _mount(
    source: bytes, target: Path, kind: bytes | None, flags: int, options: bytes | None = None
) -> None:
    _call("mount", source, os.fsencode(target), kind, ctypes.c_ulong(flags), options)


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises:
        OSError: it failed.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
