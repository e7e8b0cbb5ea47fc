"""The folders that cases pass through."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Self

from ctdeface_shared.errors import ConfigurationError, EscapingPath
from ctdeface_shared.storage import atomic

PRIVATE = 0o700
_OTHERS = 0o077
DROP = 0o770
"""Mode of a newly created inbox: private, but group members may add files."""
APART = stat.S_ISVTX | stat.S_ISGID
"""More bits of a new inbox: sticky, so that members cannot move drops of others, and setgid, so
that new folders get the inbox's group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """The folders of a batch.

    All but the outbox are for the owner only.

    Attributes:
        outbox: released cases, each complete from the moment it is visible.
        staging: defaced cases before publication, on the outbox's file system.
        work: intermediate files.
        reports: one folder per case and job.
        archive: outputs that a newer job replaced.
        locks: one folder per lock.
        audit: one folder per chain of the audit log.
    """

    outbox: Path
    staging: Path
    work: Path
    reports: Path
    archive: Path
    locks: Path
    audit: Path

    @property
    def private(self) -> tuple[Path, ...]:
        """Return the folders for the owner only."""
        return (self.staging, self.work, self.reports, self.archive, self.locks, self.audit)

    @property
    def disk_places(self) -> dict[str, Path]:
        """Return the folders that the disk guard measures."""
        return {"outbox": self.outbox, "work": self.work}

    @classmethod
    def beside(cls, outbox: Path, state_root: Path, work: Path | None = None) -> Self:
        """Return a spool with one folder besides the outbox.

        Args:
            outbox: the outbox.
            state_root: holds the other folders.
            work: overrides the work folder.
        """
        return cls(
            outbox=outbox,
            staging=state_root / "staging",
            work=work or state_root / "work",
            reports=state_root / "reports",
            archive=state_root / "archive",
            locks=state_root / "locks",
            audit=state_root / "audit",
        )

    def prepare(self, *, outbox_mode: int) -> None:
        """Create missing folders and check that cases can be published.

        Args:
            outbox_mode: mode of a newly created outbox.

        Raises:
            ConfigurationError: a folder cannot be created or written, or staging or archive is on
                another file system than the outbox.
        """
        try:
            atomic.make_folder(self.outbox, mode=outbox_mode)
            for folder in self.private:
                atomic.make_folder(folder, mode=PRIVATE)
        except OSError as error:
            raise ConfigurationError(
                f"{error.filename} cannot be created: {error.strerror}"
            ) from error
        for folder in (self.outbox, *self.private):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigurationError(
                    f"{folder} is not writable by this user: give it to the user that runs ctdeface"
                )
        for folder in (self.staging, self.archive):
            if not can_rename(folder, self.outbox):
                raise ConfigurationError(
                    f"{folder} and {self.outbox} are on different file systems, so cases cannot be "
                    "published atomically: put both on one file system"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedFolders:
    """A folder inside another one.

    Attributes:
        inner: name and path of the inner folder.
        outer: name and path of the outer folder.
    """

    inner: tuple[str, Path]
    outer: tuple[str, Path]

    @property
    def problem(self) -> str:
        """Return a sentence about both, with what to do."""
        return (
            f"the folder {self.inner[0]} ({self.inner[1]}) is inside the folder "
            f"{self.outer[0]} ({self.outer[1]}): give each a folder of its own"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpool(Spool):
    """The folders of a service.

    Attributes:
        inbox: one folder per dropped case.
        taken: one folder per case that was taken out of the inbox and has not ended.
        quarantine: one folder per refused case and job.
    """

    inbox: Path
    taken: Path
    quarantine: Path

    @property
    def private(self) -> tuple[Path, ...]:
        """Return the folders for the owner only."""
        return (
            self.staging,
            self.work,
            self.reports,
            self.archive,
            self.locks,
            self.audit,
            self.taken,
            self.quarantine,
        )

    def prepare(self, *, outbox_mode: int) -> None:
        """Create missing folders and check that cases can be published, and are out of reach.

        Args:
            outbox_mode: mode of a newly created outbox.

        Raises:
            ConfigurationError: a folder cannot be created or written, is on the wrong file system,
                or others can reach it.
        """
        Spool.prepare(self, outbox_mode=outbox_mode)
        for folder in self.private:
            require_private(folder)

    def nested_folders(self, state_dir: Path) -> Iterator[NestedFolders]:
        """Yield each folder that is inside another one.

        What passes through the inner folder would be taken for content of the outer one.

        Args:
            state_dir: folder of ledger and embedded queue, the only one that may hold others.
        """
        outer = {field.name: getattr(self, field.name).resolve() for field in fields(self)}
        for name, folder in (outer | {"state_dir": state_dir.resolve()}).items():
            for other, around in outer.items():
                if name != other and folder.is_relative_to(around):
                    yield NestedFolders(inner=(name, folder), outer=(other, around))

    def require_apart(self, state_dir: Path) -> None:
        """Check that no folder is inside another one.

        Args:
            state_dir: folder of ledger and embedded queue, the only one that may hold others.

        Raises:
            ConfigurationError: one is inside another.
        """
        for pair in self.nested_folders(state_dir):
            raise ConfigurationError(pair.problem)

    def prepare_inbox(self, *, moves_originals: bool) -> None:
        """Create the inbox and check that originals can be moved.

        Args:
            moves_originals: whether the service moves or deletes dropped files.

        Raises:
            ConfigurationError: the inbox cannot be created, or originals cannot be moved out of it
                by a rename.
        """
        try:
            _create_inbox(self.inbox)
        except OSError as error:
            raise ConfigurationError(
                f"the inbox {self.inbox} cannot be created: {error.strerror}; correct spool.inbox"
            ) from error
        for folder in (self.archive, self.quarantine):
            if not can_rename(self.taken, folder):
                raise ConfigurationError(
                    f"{self.taken} and {folder} are on different file systems, so originals cannot "
                    "be moved: put both on one file system"
                )
        if not moves_originals:
            return
        if not os.access(self.inbox, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"the inbox {self.inbox} is not writable by this user: give it to the user that "
                "runs ctdeface, or set spool.originals to keep"
            )
        if not can_rename(self.inbox, self.taken):
            raise ConfigurationError(
                f"{self.inbox} and {self.taken} are on different file systems, so dropped cases "
                "cannot be taken: put both on one file system, or set spool.originals to keep"
            )

    @classmethod
    def under(cls, root: Path, inbox: Path | None = None) -> Self:
        """Return a spool with all folders in one.

        Args:
            root: holds the folders.
            inbox: overrides the inbox.
        """
        return cls(
            inbox=inbox or root / "inbox",
            taken=root / "taken",
            outbox=root / "outbox",
            quarantine=root / "quarantine",
            staging=root / "staging",
            work=root / "work",
            reports=root / "reports",
            archive=root / "archive",
            locks=root / "locks",
            audit=root / "audit",
        )


def require_private(folder: Path) -> None:
    """Check that a folder can be reached by its owner, this user, only.

    The rights of others are taken away. The folder may be a link that this user or the
    administrator made.

    Raises:
        ConfigurationError: it belongs to another user, is another user's link, or the file system
            does not keep its mode.
    """
    link, status = folder.lstat(), folder.stat()
    if link.st_uid not in {0, os.geteuid()} and stat.S_ISLNK(link.st_mode):
        raise ConfigurationError(
            f"{folder} is a link of user {link.st_uid}, and originals would be where it leads: "
            "find out who made it, then remove it"
        )
    if status.st_uid not in {os.geteuid(), _owner_of_new(folder)}:
        raise ConfigurationError(
            f"{folder} belongs to user {status.st_uid}, who could read and replace originals in "
            "it: give it to the user that runs ctdeface"
        )
    if not status.st_mode & _OTHERS:
        return
    with suppress(PermissionError):
        folder.chmod(PRIVATE)
    if folder.stat().st_mode & _OTHERS:
        raise ConfigurationError(
            f"{folder} is open to other users, and its mode cannot be changed: use a file system "
            "with modes, or mount it with mode 700 for the user that runs ctdeface"
        )


def _owner_of_new(folder: Path) -> int:
    """Return the owner of what this user creates in a folder.

    A file server may map all users to one.
    """
    probe = folder / f".{secrets.token_hex(8)}.part"
    probe.mkdir()
    try:
        return probe.stat().st_uid
    finally:
        probe.rmdir()


def _create_inbox(inbox: Path) -> None:
    """Create a missing inbox with the bits of `APART` where the system allows them."""
    if inbox.is_dir():
        return
    atomic.make_folder(inbox, mode=DROP)
    with suppress(PermissionError):
        inbox.chmod(DROP | APART)


def can_rename(source: Path, target: Path) -> bool:
    """Return whether a folder can be moved by a rename.

    Device numbers are not enough, because two mounts of one file system have the same. Linux
    reports EXDEV even if the source does not exist, so no probe file is needed.

    Args:
        source: folder from which to move.
        target: folder into which to move.
    """
    name = f".{secrets.token_hex(8)}"
    try:
        (source / name).rename(target / name)
    except OSError as error:
        return error.errno != errno.EXDEV
    return True


def case_path(root: Path, case: str) -> Path:
    """Return the folder of a case below a root.

    Raises:
        EscapingPath: the name is empty, absolute, or has empty, `.` or `..` parts.
    """
    parts = case.split("/")
    if (
        any(part in {"", ".", ".."} for part in parts)
        or "\0" in case
        or PurePosixPath(case).is_absolute()
    ):
        raise EscapingPath("the case name does not stay inside its folder")
    return root.joinpath(*parts)
