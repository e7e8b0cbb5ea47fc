"""Looks at the queue and at this machine: installation, segmenter, cores, umask, group and file events."""

import grp
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ctdeface_shared.broker.target import masked, split
from ctdeface_shared.doctor.finding import Diagnosis, ok, problem, warning
from ctdeface_shared.doctor.storage import existing
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.settings.sections import WatchMode
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.storage.file_systems import NETWORK_KINDS, kind_of

EXTRAS = {
    "watcher": ("watchdog", "pika"),
    "worker": ("numpy", "scipy", "pydicom", "SimpleITK", "torch", "nnunetv2", "PIL", "jinja2"),
}
"""A library of each that tells whether an extra is installed."""
_MOUNTS = Path("/proc/self/mounts")
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
NEARLY = 0.8
"""Of the file events that a user may ask for."""


def diagnose_queue(service: ServiceConfig) -> Iterator[Diagnosis]:
    """Look whether the queue is there and as it must be; nothing is declared."""
    where = masked(service.queue.url)
    try:
        if split(service.queue.url).scheme == "sqlite":
            from ctdeface_shared.broker.sqlite import check
        else:
            from ctdeface_shared.broker.rabbitmq import check
        found = check(service.queue, create=False)
    except ModuleNotFoundError as error:
        yield problem(
            "queue",
            f"{where} needs {error.name}, which is not installed: pip install 'ctdeface[watcher]'",
        )
        return
    except CtDefaceError as error:
        yield problem("queue", str(error))
        return
    for said in found.wrong:
        yield (warning if split(service.queue.url).scheme == "sqlite" else problem)("queue", said)
    for said in found.not_seen:
        yield warning("queue", f"not seen: {said}")
    if not found.wrong:
        yield ok("queue", f"{found.server} at {where}")


def diagnose_machine(service: ServiceConfig) -> Iterator[Diagnosis]:
    """Look at what is installed and what this machine gives."""
    yield from _extras(service)
    yield from _cores(service)
    yield from _rights(service)
    yield from _events(service)


def _extras(service: ServiceConfig) -> Iterator[Diagnosis]:
    for extra, libraries in EXTRAS.items():
        missing = [name for name in libraries if find_spec(name) is None]
        if missing:
            yield warning(
                extra,
                f"{', '.join(missing)} not installed: pip install 'ctdeface[{extra}]' if this machine shall be a {extra}",
            )
        elif extra == "worker":
            yield _segmenter(service)
        else:
            yield ok(extra, "its libraries are installed")


def _segmenter(service: ServiceConfig) -> Diagnosis:
    name = service.settings.deface.segmenter
    try:
        import_module("ctdeface_worker.segmentation.choice").segmenter_named(
            name, service.settings.models.place
        )
    except CtDefaceError as error:
        return problem("worker", str(error))
    return ok("worker", f"its libraries are installed, and the segmenter {name} can be loaded")


def _cores(service: ServiceConfig) -> Iterator[Diagnosis]:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    work = service.settings.work
    threads = work.threads or max(cores // work.jobs, 1)
    said = f"{work.jobs} cases at once with {threads} threads each on {cores} cores"
    yield (
        ok("cores", said)
        if work.jobs * threads <= cores
        else warning("cores", f"{said}: lower work.jobs or work.threads")
    )


def _rights(service: ServiceConfig) -> Iterator[Diagnosis]:
    mask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(mask)
    if mask & 0o700:
        yield problem(
            "umask",
            f"{mask:04o} takes rights from the owner, so files could not be read again: set it to 0027 or 0077",
        )
    else:
        yield ok("umask", f"{mask:04o}")
    group = service.settings.output.outbox_group
    if group is not None:
        try:
            member = (
                grp.getgrnam(group).gr_gid in {os.getegid(), *os.getgroups()} or os.geteuid() == 0
            )
        except KeyError:
            yield problem(
                "group", f"there is no group {group}: make it, or change output.outbox_group"
            )
            return
        yield (
            ok("group", group)
            if member
            else problem(
                "group",
                f"this user is not in the group {group}: add it, or change output.outbox_group",
            )
        )


def _events(service: ServiceConfig) -> Iterator[Diagnosis]:
    if service.settings.watch.mode is WatchMode.POLLING:
        yield ok("events", "the inbox is polled")
        return
    inbox = existing(service.spool.inbox)
    try:
        kind = kind_of(
            inbox.resolve(),
            _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines(),
        )
        allowed = int(_WATCHES.read_text(encoding="ascii"))
    except (OSError, ValueError):
        yield ok("events", "this system has no inotify to look at")
        return
    if kind in NETWORK_KINDS:
        yield warning(
            "events",
            f"the inbox lies on {kind}, where drops of other machines make no events: set watch.mode to polling",
        )
        return
    folders = _count_above_cases(service.spool.inbox, service.settings.watch.case_depth)
    said = f"{folders} folders to watch, {allowed} allowed (fs.inotify.max_user_watches)"
    yield (
        ok("events", said)
        if folders < NEARLY * allowed
        else warning("events", f"{said}: raise it with sysctl, or set watch.mode to polling")
    )


def _count_above_cases(folder: Path, depth: int) -> int:
    """Count the folders that the watcher listens to, which hold cases or folders of them; those of cases need no watch."""
    try:
        below = (
            [
                Path(entry.path)
                for entry in os.scandir(folder)
                if entry.is_dir(follow_symlinks=False)
            ]
            if depth > 1
            else []
        )
    except OSError:
        return 0
    return 1 + sum(_count_above_cases(inner, depth - 1) for inner in below)
