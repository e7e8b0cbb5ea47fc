"""Checks of a service's folders: rights, file systems, nesting, clock and free space."""

import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ctdeface_shared.doctor.finding import Finding, ok, problem, warning
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.text import duration
from ctdeface_shared.storage.disk import nearest_existing
from ctdeface_shared.storage.file_systems import require_local
from ctdeface_shared.storage.spool import can_rename

SKEW_WARNING_SECONDS, SKEW_PROBLEM_SECONDS = 5.0, 60.0
"""Locks and leases of other machines are judged by file times, so clocks must agree."""
COMFORTABLE = 3.0
"""Warn below this multiple of output.min_free_gb."""
_FOLDERS = (
    "inbox",
    "outbox",
    "quarantine",
    "taken",
    "staging",
    "work",
    "reports",
    "archive",
    "locks",
    "audit",
)


def storage_findings(service: ServiceConfig) -> Iterator[Finding]:
    """Check the folders; nothing is created but probe files that are removed again."""
    folders = {name: getattr(service.spool, name) for name in _FOLDERS}
    folders["state"] = service.state_dir
    yield from _writable(service, folders)
    yield from _inbox_findings(service)
    yield from _file_systems(service)
    yield from _nested(service)
    yield _state_disk(service)
    yield from _clock(service)
    yield from _free_space(service)


def _writable(service: ServiceConfig, folders: Mapping[str, Path]) -> Iterator[Finding]:
    keep = service.settings.spool.originals is Originals.KEEP
    wrong = False
    for name, folder in folders.items():
        reason = _why_unusable(folder, read_only=keep and name == "inbox")
        if reason:
            wrong = True
            yield problem(
                "folders",
                f"{name} at {folder}: {reason}: give it to the user that runs the service",
            )
    missing = [name for name, folder in folders.items() if not folder.is_dir()]
    if missing:
        yield warning(
            "folders",
            f"{', '.join(missing)} not there yet: created when watcher or worker first start",
        )
    if not wrong:
        yield ok("folders", f"{service.spool.reports.parent} is writable")


def _why_unusable(folder: Path, *, read_only: bool) -> str:
    """Return why a folder cannot be used, or an empty text."""
    if read_only and folder.is_dir():
        return "" if os.access(folder, os.R_OK | os.X_OK) else "it cannot be read"
    existing = nearest_existing(folder)
    if os.path.lexists(folder) and existing != folder:
        return "something else has that name"
    probe = existing / f".doctor-{secrets.token_hex(4)}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _inbox_findings(service: ServiceConfig) -> Iterator[Finding]:
    """Check who can do what in the inbox."""
    inbox = service.spool.inbox
    try:
        status = inbox.stat()
    except OSError:
        return  # reported as missing or not usable
    moves = service.settings.spool.originals is not Originals.KEEP
    lacks = tuple(judge_inbox(inbox, status, Account.of_this_process(), moves_originals=moves))
    for text in lacks:
        yield warning("inbox", text)
    if not lacks:
        yield ok("inbox", f"{inbox} keeps the drops of its users apart")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user with its groups.

    Attributes:
        uid: user id; 0 may do everything.
        groups: ids of all its groups.
    """

    uid: int
    groups: frozenset[int]

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the account that runs this process."""
        return cls(uid=os.geteuid(), groups=frozenset({os.getegid(), *os.getgroups()}))


def judge_inbox(
    inbox: Path, status: os.stat_result, service: Account, *, moves_originals: bool
) -> Iterator[str]:
    """Yield what an inbox lacks, each with the command to run.

    Args:
        inbox: its path, for the commands.
        status: its mode, owner and group.
        service: the account of the service.
        moves_originals: whether the service moves dropped files.
    """
    mode, quoted = status.st_mode, shlex.quote(str(inbox))
    if mode & stat.S_IWOTH:
        yield f"every user of this machine can drop cases: chmod o-w {quoted}"
    if not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    if not mode & stat.S_ISVTX:
        yield (
            "it is not sticky, so its users can move, replace and delete the drops of others: "
            f"chmod +t {quoted}"
        )
    elif moves_originals and service.uid not in {0, status.st_uid}:
        yield (
            "it is sticky and belongs to another user, so the service can only copy drops and "
            f"leaves them there: chown {service.uid} {quoted}"
        )
    if not mode & stat.S_ISGID:
        yield (
            "it is not setgid, so new folders get the group of their user and the service may not "
            f"be able to read them: chmod g+s {quoted}"
        )
    if service.uid != 0 and status.st_gid not in service.groups:
        yield (
            f"its group {status.st_gid} is not a group of the service, which may not be able to "
            f"read drops: chgrp {min(service.groups)} {quoted}, or add the service to the group"
        )


def _file_systems(service: ServiceConfig) -> Iterator[Finding]:
    """Check that folders between which cases are renamed share a file system."""
    spool = service.spool
    pairs = [
        ("staging", spool.staging, "outbox", spool.outbox),
        ("archive", spool.archive, "outbox", spool.outbox),
        ("taken", spool.taken, "archive", spool.archive),
        ("taken", spool.taken, "quarantine", spool.quarantine),
    ]
    if service.settings.spool.originals is not Originals.KEEP:
        pairs.append(("inbox", spool.inbox, "taken", spool.taken))
    apart = [f"{one} and {other}" for one, here, other, there in pairs if _apart(here, there)]
    for pair in apart:
        hint = ", or set spool.originals to keep" if "inbox" in pair else ""
        yield problem(
            "disks",
            f"{pair} are on different file systems, so cases cannot be moved atomically: "
            f"put them on one{hint}",
        )
    if not apart:
        yield ok("disks", "folders between which cases are moved are on one file system")


def _apart(one: Path, other: Path) -> bool:
    """Return whether no rename is possible between two folders."""
    here, there = nearest_existing(one), nearest_existing(other)
    return _device(here) != _device(there) or not can_rename(here, there)


def _device(folder: Path) -> int:
    return nearest_existing(folder).stat().st_dev


def _nested(service: ServiceConfig) -> Iterator[Finding]:
    nested = tuple(service.spool.nested_folders(service.state_dir))
    for pair in nested:
        yield problem("layout", pair.problem)
    if not nested:
        yield ok("layout", "no folder is inside another")


def _state_disk(service: ServiceConfig) -> Finding:
    try:
        require_local(nearest_existing(service.state_dir))
    except ConfigurationError as error:
        return problem("state", str(error))
    return ok("state", f"{service.state_dir} is on a local disk")


def _clock(service: ServiceConfig) -> Iterator[Finding]:
    """Compare this machine's clock with the file system's time of a new file."""
    probe = nearest_existing(service.spool.reports) / f".doctor-{secrets.token_hex(4)}"
    try:
        before = time.time()
        probe.touch()
        written, after = probe.stat().st_mtime, time.time()
        probe.unlink()
    except OSError:
        return  # reported as not writable
    yield judge_clock(before, written, after)


def judge_clock(before: float, written: float, after: float) -> Finding:
    """Compare a file's time with the clock before and after it was written.

    Args:
        before: time before the file was written, seconds since the epoch.
        written: modification time of the file, seconds since the epoch.
        after: time after the file was written, seconds since the epoch.
    """
    skew = max(before - written, written - after, 0.0)
    if skew < SKEW_WARNING_SECONDS:
        return ok("clock", "this machine and the spool's file system agree")
    grade = problem if skew > SKEW_PROBLEM_SECONDS else warning
    return grade(
        "clock",
        f"this machine and the spool's file system differ by {duration(skew)}, "
        f"at most {SKEW_WARNING_SECONDS:g} s are expected: "
        "synchronize both with the same time server",
    )


def _free_space(service: ServiceConfig) -> Iterator[Finding]:
    for space in service.free_space():
        text = f"{space.free_gb:.1f} GB free at {space.place}"
        bound = f"output.min_free_gb ({space.least_gb:g})"
        if not space.is_enough:
            yield problem("space", space.shortage)
        elif space.free_gb < COMFORTABLE * space.least_gb:
            yield warning("space", f"{text}, close to {bound}: make space soon")
        else:
            yield ok("space", text)
