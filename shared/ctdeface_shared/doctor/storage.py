"""Checks of a service's folders: rights, file systems, nesting, clock and free space."""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

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


def _file_systems(service: ServiceConfig) -> Iterator[Finding]:
    """Check that folders between which cases are renamed share a file system."""
    spool = service.spool
    pairs = [
        ("staging", spool.staging, "outbox", spool.outbox),
        ("archive", spool.archive, "outbox", spool.outbox),
    ]
    if service.settings.spool.originals is not Originals.KEEP:
        pairs += [
            ("inbox", spool.inbox, "archive", spool.archive),
            ("inbox", spool.inbox, "quarantine", spool.quarantine),
        ]
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
