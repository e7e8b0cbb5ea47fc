"""The guard against full disks."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import StorageUnavailable

GIGABYTE = 1_000_000_000
"""Bytes of the unit in which free space is set and shown."""

STATE = "state"
"""Name of the state folder among the places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSpace:
    """The free space of one file system.

    Attributes:
        place: name of the first folder on it, such as "outbox".
        free_gb: free space in GB.
        least_gb: `output.min_free_gb`.
    """

    place: str
    free_gb: float
    least_gb: float

    @property
    def is_enough(self) -> bool:
        """Return whether new cases may begin."""
        return self.free_gb >= self.least_gb

    @property
    def shortage(self) -> str:
        """Return a sentence about too little free space."""
        # The service goes on with a small disk of its own for the state.
        effect = "" if self.place == STATE else "; until then no new case begins"
        return (
            f"{self.free_gb:.1f} GB are free at {self.place}, and output.min_free_gb requires "
            f"{self.least_gb:g}: make space{effect}"
        )


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def measure_free_space(places: Mapping[str, Path], least_gb: float) -> tuple[FreeSpace, ...]:
    """Measure the free space of each file system once.

    Args:
        places: folders by name; of several on one file system the first gives it its name.
        least_gb: required free space in GB.

    Raises:
        OSError: a folder does not exist or cannot be reached.
    """
    devices: set[int] = set()
    found = []
    for place, folder in places.items():
        device = folder.stat().st_dev
        if device not in devices:
            devices.add(device)
            free_gb = shutil.disk_usage(folder).free / GIGABYTE
            found.append(FreeSpace(place=place, free_gb=free_gb, least_gb=least_gb))
    return tuple(found)


def require_free_space(places: Mapping[str, Path], least_gb: float) -> None:
    """Refuse to begin a case when a disk is nearly full.

    Args:
        places: folders by name.
        least_gb: required free space in GB.

    Raises:
        StorageUnavailable: less is free.
        OSError: a folder does not exist or cannot be reached.
    """
    for space in measure_free_space(places, least_gb):
        if not space.is_enough:
            raise StorageUnavailable(space.shortage)
