"""A small file system of its own, to be filled up; only root can mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.required import missing

NOT_ROOT = "only root can mount the small file system that this test fills up"


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of so many megabytes at a folder; without root the test is skipped, or fails in continuous integration."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(place)], check=False, capture_output=True
    ).returncode == 0  # fmt: skip
    if not mounted:
        missing(NOT_ROOT)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill_up(folder: Path, leave_bytes: int = 0) -> Path:
    """Fill the file system of a folder but for so many bytes; return the file to remove."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(65_536))
        except OSError:
            pass
        if leave_bytes:
            stream.truncate(max(stream.tell() - leave_bytes, 0))
    return filler
