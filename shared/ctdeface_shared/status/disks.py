"""Free space of a service's disks."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.settings.service import ServiceConfig

_GIGABYTE = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpace:
    """Free space of one file system.

    Attributes:
        place: name of the first folder on it: outbox, work or state.
        free_gb: free space in 10⁹ bytes.
    """

    place: str
    free_gb: float


def disk_space(service: ServiceConfig) -> tuple[DiskSpace, ...]:
    """Return the free space of each file system that the service writes to.

    Raises:
        OSError: a folder cannot be examined.
    """
    places = {
        "outbox": service.spool.outbox,
        "work": service.spool.work,
        "state": service.state_dir,
    }
    found: dict[int, DiskSpace] = {}
    for place, folder in places.items():
        existing = nearest_existing(folder)
        free_gb = shutil.disk_usage(existing).free / _GIGABYTE
        found.setdefault(existing.stat().st_dev, DiskSpace(place=place, free_gb=free_gb))
    return tuple(found.values())


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder
