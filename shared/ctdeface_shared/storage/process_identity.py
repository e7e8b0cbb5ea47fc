"""Which process of which machine is meant, and whether it still lives.

A pid means something only on its host, boot and pid namespace (containers share a boot but count
their own pids), and only together with the start of the process: pids are given again.
"""

import os
import re
import socket
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

NAME = r"[0-9a-f]{16}\.[0-9]{1,9}\.[0-9]*"
"""What `short_name` looks like, as a regular expression."""


def this_process() -> dict[str, str | int]:
    """Describe this process so that another one can tell whether it has ended (`has_ended`)."""
    return {**_here(), "pid": os.getpid(), "started": start_of(os.getpid())}


def has_ended(process: Mapping[str, Any]) -> bool | None:
    """Whether a process has ended, given what it said about itself; None for one of another machine or container, and for no process."""
    pid = process.get("pid")
    if not isinstance(pid, int) or any(process.get(key) != value for key, value in _here().items()):
        return None
    return bool(process.get("started") != start_of(pid))


def short_name() -> str:
    """Name this process in a form that fits into file names and cells: place, pid and start."""
    pid = os.getpid()
    return f"{_place()}.{pid}.{start_of(pid)}"


def named_has_ended(name: str) -> bool | None:
    """Whether a process has ended, given its `short_name`; None for one of another machine or container, and for no such name."""
    if not re.fullmatch(NAME, name):
        return None
    place, pid, started = name.split(".")
    return started != start_of(int(pid)) if place == _place() else None


def start_of(pid: int) -> str:
    """When a process of this machine began, as an opaque text; empty when there is none, so that a reused pid is no confusion."""
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
    """Where a pid means something, as 16 hexadecimal digits."""
    return sha256("\n".join(_here().values()).encode()).hexdigest()[:16]


def _here() -> dict[str, str]:
    """This host name, boot and pid namespace."""
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
