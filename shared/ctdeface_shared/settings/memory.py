"""The share of the memory that each case may use, unless it is set."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ctdeface_shared.settings.loading import Settings

_SHARE: Final = 0.85
"""The rest is for the other processes and the cache of files."""
_V1_FILE, _V2_FILE = "memory.limit_in_bytes", "memory.max"


def with_memory_share(settings: Settings, processes: int, root: Path = Path("/")) -> Settings:
    """Return settings with an explicit `work.memory_limit_gb`.

    A limit that is set stays. Without /proc there is none.

    Args:
        settings: the settings in effect.
        processes: number of cases at the same time on this machine or in this container.
        root: where /proc and /sys are.
    """
    memory = available_bytes(root)
    if settings.work.memory_limit_gb is not None or memory is None:
        return settings
    share_gb = memory * _SHARE / max(processes, 1) / 1e9
    work = settings.work.model_copy(update={"memory_limit_gb": share_gb})
    return settings.model_copy(update={"work": work})


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory of the machine, or of the control group if that is less.

    Both versions of control groups are understood, as containers and services of systemd use them.

    Args:
        root: where /proc and /sys are.

    Returns:
        Bytes; None without /proc/meminfo.
    """
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
        return min([total * 1024, *_group_limits(root)])
    return None


def _group_limits(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control group and the groups around it."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits_along(groups, path, _V2_FILE)
        elif "memory" in controllers.split(","):
            yield from _limits_along(groups / "memory", path, _V1_FILE)


def _limits_along(top: Path, path: str, name: str) -> Iterator[int]:
    folder = top / path.lstrip("/")
    for group in (folder, *folder.parents):
        with suppress(OSError, ValueError):  # not limited, or not visible in a container
            yield int((group / name).read_text(encoding="ascii"))
        if group == top:
            return
