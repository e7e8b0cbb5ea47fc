"""Identity of a process across machines.

A pid is valid only on its host, boot and pid namespace (containers share a boot but count their own
pids), and only together with the start of the process, because pids are reused.
"""

import os
import re
import socket
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

_LARGEST_PID = 2**31 - 1
NAME = r"[0-9a-f]{16}\.[0-9]{1,9}\.[0-9]*"
"""Regular expression of `short_name`."""


def this_process() -> dict[str, str | int]:
    """Describe this process, for `has_ended` in another one."""
    return {**_here(), "pid": os.getpid(), "started": start_of(os.getpid())}


def has_ended(process: Mapping[str, Any]) -> bool | None:
    """Return whether a process has ended.

    Args:
        process: a description by `this_process`.

    Returns:
        None if the process ran on another machine or in another container, or the description is
        not valid.
    """
    pid = process.get("pid")
    if not isinstance(pid, int) or not 0 < pid <= _LARGEST_PID:
        return None
    if any(process.get(key) != value for key, value in _here().items()):
        return None
    return bool(process.get("started") != start_of(pid))


def short_name() -> str:
    """Return a short name of this process for file names.

    It consists of a digest of host, boot and pid namespace, the pid, and the start.
    """
    pid = os.getpid()
    return f"{_place()}.{pid}.{start_of(pid)}"


def named_has_ended(name: str) -> bool | None:
    """Return whether the process with a `short_name` has ended.

    Returns:
        None if it ran on another machine or in another container, or the name is not valid.
    """
    if not re.fullmatch(NAME, name):
        return None
    place, pid, started = name.split(".")
    return started != start_of(int(pid)) if place == _place() else None


def start_of(pid: int) -> str:
    """Return the start of a process as an opaque text.

    It distinguishes processes with the same pid. It is empty if the process does not run.
    """
    try:
        fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="ascii", errors="replace")
            .rpartition(")")[2]
            .split()
        )
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "" if Path("/proc/self").exists() else str(pid)


def _place() -> str:
    """Return 16 hexadecimal digits for host, boot and pid namespace."""
    return sha256("\n".join(_here().values()).encode()).hexdigest()[:16]


def _here() -> dict[str, str]:
    """Return host name, boot id and pid namespace."""
    return {"host": socket.gethostname(), "boot": _boot_id(), "pids": _pid_namespace()}


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
