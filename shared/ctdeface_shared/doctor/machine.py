"""Checks of this machine: installation, cores, ports, umask, group and file events."""

import grp
import os
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ctdeface_shared.doctor.finding import Finding, ok, problem, warning
from ctdeface_shared.metrics.ports import is_free, metrics_ports
from ctdeface_shared.settings.sections import WatchMode
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.storage.case_folders import parent_folders
from ctdeface_shared.storage.disk import nearest_existing
from ctdeface_shared.storage.file_systems import NETWORK_KINDS, kind_of

CHECKS = "ctdeface.checks"
"""Entry points of checks that other packages add, named after the extra that they need."""
EXTRAS = {
    "watcher": ("watchdog", "pika", "pydicom"),
    "worker": ("numpy", "scipy", "pydicom", "SimpleITK", "torch", "nnunetv2", "PIL", "jinja2"),
}
"""Libraries that show whether an extra is installed."""
WATCH_SHARE = 0.8
"""Share of the allowed inotify watches that may be used without a warning."""
_MOUNTS = Path("/proc/self/mounts")
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


def machine_findings(service: ServiceConfig) -> Iterator[Finding]:
    """Check what is installed and what this machine offers."""
    yield from _extras(service)
    yield _cores(service)
    yield from _ports(service)
    yield _umask()
    yield from _group(service)
    yield _file_events(service)


def _extras(service: ServiceConfig) -> Iterator[Finding]:
    for extra, libraries in EXTRAS.items():
        missing = [name for name in libraries if find_spec(name) is None]
        checks = tuple(metadata.entry_points(group=CHECKS, name=extra))
        if missing:
            yield warning(
                extra,
                f"{', '.join(missing)} not installed: pip install 'ctdeface[{extra}]' "
                f"if this machine is to run a {extra}",
            )
        elif checks:
            yield from (entry.load()(service) for entry in checks)
        else:
            yield ok(extra, "its libraries are installed")


def _cores(service: ServiceConfig) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    work = service.settings.work
    threads = work.threads or max(cores // work.jobs, 1)
    text = f"{work.jobs} cases at the same time, {threads} threads each, on {cores} cores"
    if work.jobs * threads <= cores:
        return ok("cores", text)
    return warning("cores", f"{text}: lower work.jobs or work.threads")


def _ports(service: ServiceConfig) -> Iterator[Finding]:
    """Check the metrics ports of one watcher and of the workers that `up` starts."""
    section = service.settings.metrics
    ports = tuple(metrics_ports(section, service.settings.work.jobs))
    taken = [(key, port) for key, port in ports if not is_free(section.host, port)]
    for key, port in taken:
        yield warning(
            "ports",
            f"port {port} at {section.host} is in use: fine if this service is running, "
            f"otherwise choose a free port with {key} (0 turns metrics off)",
        )
    if not taken:
        shown = ", ".join(str(port) for _, port in ports)
        yield ok("ports", f"{shown} free at {section.host}" if ports else "metrics are turned off")


def _umask() -> Finding:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    if mask & 0o700:
        return problem(
            "umask",
            f"{mask:04o} takes rights from the owner, so the service could not read its own files: "
            "set it to 0027 or 0077",
        )
    return ok("umask", f"{mask:04o}")


def _group(service: ServiceConfig) -> Iterator[Finding]:
    group = service.settings.output.outbox_group
    if group is None:
        return
    try:
        wanted = grp.getgrnam(group).gr_gid
    except KeyError:
        yield problem(
            "group", f"the group {group} does not exist: create it, or change output.outbox_group"
        )
        return
    if wanted in {os.getegid(), *os.getgroups()} or os.geteuid() == 0:
        yield ok("group", group)
    else:
        yield problem(
            "group",
            f"this user is not in the group {group}: add it, or change output.outbox_group",
        )


def _file_events(service: ServiceConfig) -> Finding:
    if service.settings.watch.mode is WatchMode.POLLING:
        return ok("events", "the inbox is polled")
    inbox = nearest_existing(service.spool.inbox)
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        kind = kind_of(inbox.resolve(), mounts)
        allowed = int(_WATCHES.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return ok("events", "this system has no inotify to check")
    if kind in NETWORK_KINDS:
        return warning(
            "events",
            f"the inbox is on {kind}, where drops from other machines cause no file events: "
            "set watch.mode to polling",
        )
    try:
        folders = len(list(parent_folders(service.spool.inbox, service.settings.watch.case_depth)))
    except OSError:
        folders = 1  # the missing inbox has a finding of its own
    text = f"{folders} folders to watch, {allowed} allowed (fs.inotify.max_user_watches)"
    if folders < WATCH_SHARE * allowed:
        return ok("events", text)
    return warning("events", f"{text}: raise it with sysctl, or set watch.mode to polling")
