"""Looks at the folders of a service: writable, on the right file systems, apart from each other, with space and the right time."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from ctdeface_shared.doctor.finding import Diagnosis, ok, problem, warning
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.spool_status import duration
from ctdeface_shared.storage.file_systems import require_local
from ctdeface_shared.storage.spool import can_rename

_GIGABYTE = 1e9
SKEW_WARNING_SECONDS, SKEW_PROBLEM_SECONDS = 5.0, 60.0
"""Locks and leases of other machines are judged by the times of their files: clocks must agree within a minute."""
COMFORTABLE = 3.0
"""So many times the least free space."""


def diagnose_spool(service: ServiceConfig) -> Iterator[Diagnosis]:
    """Look at the folders; nothing is made but a probe that is removed at once."""
    folders = _folders(service)
    yield from _writable(service, folders)
    yield from _file_systems(service)
    yield from _apart(folders)
    yield from _state(service)
    yield from _clock(service)
    yield from _disk(service)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _folders(service: ServiceConfig) -> dict[str, Path]:
    spool = service.spool
    return {
        **{
            name: getattr(spool, name)
            for name in (
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
        },
        "state": service.state_dir,
    }


def _writable(service: ServiceConfig, folders: dict[str, Path]) -> Iterator[Diagnosis]:
    missing = [name for name, folder in folders.items() if not folder.is_dir()]
    keep = service.settings.spool.originals is Originals.KEEP
    wrong = False
    for name, folder in folders.items():
        there = existing(folder)
        reason = (
            "there is something else of that name"
            if os.path.lexists(folder) and there != folder
            else _why_not_writable(there)
        )
        if name == "inbox" and keep and folder.is_dir():
            reason = "" if os.access(folder, os.R_OK | os.X_OK) else "it cannot be read"
        if reason:
            wrong = True
            yield problem(
                "folders",
                f"{name} at {folder}: {reason}: give it to the user that runs the service",
            )
    if missing:
        yield warning(
            "folders",
            f"{', '.join(missing)} not there yet: made at the first start of watcher or worker",
        )
    if not wrong:
        yield ok("folders", f"{service.spool.reports.parent} can be written")


def _why_not_writable(folder: Path) -> str:
    probe = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _file_systems(service: ServiceConfig) -> Iterator[Diagnosis]:
    spool = service.spool
    pairs = [
        ("staging", spool.staging, "outbox", spool.outbox),
        ("archive", spool.archive, "outbox", spool.outbox),
    ]
    if service.settings.spool.originals is not Originals.KEEP:
        pairs += [
            ("inbox", spool.inbox, name, folder)
            for name, folder in (("archive", spool.archive), ("quarantine", spool.quarantine))
        ]
    apart = [
        f"{one} and {other}"
        for one, here, other, there in pairs
        if _are_apart(existing(here), existing(there))
    ]
    for pair in apart:
        hint = ", or set spool.originals to keep" if "inbox" in pair else ""
        yield problem(
            "disks",
            f"{pair} lie on different file systems, so nothing can be moved at once: put them on one{hint}",
        )
    if not apart:
        yield ok("disks", "what is moved at once lies on one file system")


def _are_apart(here: Path, there: Path) -> bool:
    """Whether nothing can be moved at once between two folders, as far as this user may try."""
    return _device(here) != _device(there) or not can_rename(here, there)


def _device(folder: Path) -> int:
    return existing(folder).stat().st_dev


def _apart(folders: dict[str, Path]) -> Iterator[Diagnosis]:
    nested = False
    for (one, here), (other, there) in combinations(
        ((name, folder.resolve()) for name, folder in folders.items()), 2
    ):
        if here.is_relative_to(there) or there.is_relative_to(here):
            nested = True
            yield problem(
                "layout",
                f"{one} and {other} lie in each other ({here}, {there}): give each a place of its own",
            )
    if not nested:
        yield ok("layout", "no folder lies in another")


def _state(service: ServiceConfig) -> Iterator[Diagnosis]:
    try:
        require_local(existing(service.state_dir))
    except ConfigurationError as error:
        yield problem("state", str(error))
        return
    yield ok("state", f"{service.state_dir} is on a local disk")


def _clock(service: ServiceConfig) -> Iterator[Diagnosis]:
    """Compare the time that the spool's file system gives to a new file with the clock of this machine."""
    probe = existing(service.spool.reports) / f".doctor-{secrets.token_hex(4)}"
    try:
        before = time.time()
        probe.touch()
        written, after = probe.stat().st_mtime, time.time()
        probe.unlink()
    except OSError:
        return  # told as not writable
    yield judge_clock(before, written, after)


def judge_clock(before: float, written: float, after: float) -> Diagnosis:
    """Compare the time of a file with the times before and after it was written, all in seconds since the epoch."""
    skew = max(before - written, written - after, 0.0)
    if skew < SKEW_WARNING_SECONDS:
        return ok("clock", "this machine and the spool's file system agree")
    said = f"this machine and the spool's file system differ by {duration(skew)}: synchronize both with the same time server"
    return problem("clock", said) if skew > SKEW_PROBLEM_SECONDS else warning("clock", said)


def _disk(service: ServiceConfig) -> Iterator[Diagnosis]:
    least = service.settings.output.min_free_gb
    seen: set[int] = set()
    for name, folder in (
        ("outbox", service.spool.outbox),
        ("work", service.spool.work),
        ("state", service.state_dir),
    ):
        if _device(folder) in seen:
            continue
        seen.add(_device(folder))
        free = shutil.disk_usage(existing(folder)).free / _GIGABYTE
        if free < least:
            yield problem(
                "space",
                f"{free:.1f} GB free at {name}, less than output.min_free_gb ({least:g}): nothing new is begun, make space",
            )
        elif free < COMFORTABLE * least:
            yield warning(
                "space",
                f"{free:.1f} GB free at {name}, close to output.min_free_gb ({least:g}): make space soon",
            )
        else:
            yield ok("space", f"{free:.1f} GB free at {name}")
