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
    """Mount a small file system; skip without root, or fail in CI."""
    place.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    mounted = (
        os.geteuid() == 0
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )
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
