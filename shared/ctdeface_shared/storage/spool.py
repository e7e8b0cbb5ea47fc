"""The folders that cases pass through."""

import errno
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Self

from ctdeface_shared.errors import ConfigurationError, EscapingPath
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.storage import atomic

PRIVATE = 0o700
DROP = 0o770
"""Of an inbox that is made here: undefaced patients are nobody else's business, and the group may drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """Where everything lies. All folders but the outbox are for the owner only.

    Attributes:
        outbox: released cases, each complete from the moment it is visible.
        staging: defaced but not yet published; on the outbox's file system.
        work: intermediates.
        reports: one folder per case and job.
        archive: earlier outputs that a newer job replaced.
        locks: one folder per locked case.
        audit: one folder per chain of entries about how cases ended.
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
        """Folders for the owner only."""
        return (self.staging, self.work, self.reports, self.archive, self.locks, self.audit)

    @property
    def disk_places(self) -> dict[str, Path]:
        """Return the folders whose free space decides whether a case may begin."""
        return {"outbox": self.outbox, "work": self.work}

    @classmethod
    def beside(cls, outbox: Path, state_root: Path, work: Path | None = None) -> Self:
        """Lay everything but the outbox under one state folder."""
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
        """Create what is missing and check that a staged case can be published by a rename.

        Raises:
            ConfigurationError: a folder cannot be made or written, or staging lies on another file
                system than the outbox.
        """
        try:
            atomic.make_folder(self.outbox, mode=outbox_mode)
            for folder in self.private:
                atomic.make_folder(folder, mode=PRIVATE)
        except OSError as error:
            raise ConfigurationError(
                f"{error.filename} cannot be made: {error.strerror}"
            ) from error
        for folder in (self.outbox, *self.private):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigurationError(f"{folder} is not writable by this user")
        for folder in (self.staging, self.archive):
            if not can_rename(folder, self.outbox):
                raise ConfigurationError(
                    f"{folder} and {self.outbox} lie on different file systems, so cases could not be published at once"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedFolders:
    """Two folders of a service of which one is inside the other.

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
    """The folders of the service: the batch's, and where cases come from and end when they are refused.

    Attributes:
        inbox: one folder per dropped case.
        quarantine: one folder per refused case and job.
    """

    inbox: Path
    quarantine: Path

    @property
    def private(self) -> tuple[Path, ...]:
        """Folders for the owner only; the inbox belongs to whoever drops."""
        return (
            self.staging,
            self.work,
            self.reports,
            self.archive,
            self.locks,
            self.audit,
            self.quarantine,
        )

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

    def prepare_inbox(self, originals: Originals) -> None:
        """Create the inbox if it is missing and check that originals can be put away from it.

        Raises:
            ConfigurationError: it cannot be made, or originals cannot be moved out of it at once.
        """
        try:
            atomic.make_folder(self.inbox, mode=DROP)
        except OSError as error:
            raise ConfigurationError(
                f"the inbox {self.inbox} cannot be made: {error.strerror}"
            ) from error
        if originals is Originals.KEEP:
            return
        if not os.access(self.inbox, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"the inbox {self.inbox} cannot be changed by this user: set spool.originals to keep"
            )
        for folder in (self.archive, self.quarantine):
            if not can_rename(self.inbox, folder):
                raise ConfigurationError(
                    f"{self.inbox} and {folder} lie on different file systems: put them on one, or set spool.originals to keep"
                )

    @classmethod
    def under(cls, root: Path, inbox: Path | None = None) -> Self:
        """Lay everything in one folder; the inbox may lie elsewhere."""
        return cls(
            inbox=inbox or root / "inbox",
            outbox=root / "outbox",
            quarantine=root / "quarantine",
            staging=root / "staging",
            work=root / "work",
            reports=root / "reports",
            archive=root / "archive",
            locks=root / "locks",
            audit=root / "audit",
        )


def can_rename(source: Path, target: Path) -> bool:
    """Whether a folder can be moved at once from one folder into another; two mounts of one file system have the same device.

    Linux compares the mounts before it looks for what is to be moved, so nothing has to be there,
    and nobody sees anything.
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
