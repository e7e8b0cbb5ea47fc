"""The steps from a zip file to a case folder.

A zip file is unpacked into a hidden folder beside the case, which a rename then shows.
"""

import shutil
from glob import escape
from pathlib import Path

from ctdeface_shared.errors import StorageUnavailable, UnsafeArchive
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.case_folders import is_unfinished, parent_folders
from ctdeface_watcher.inbox.unzip import ZipLimits, unpack, unpacked_sizes

_UNPACKING = ".unpacking"


def hidden_folder(case: Path) -> Path:
    """Return the hidden folder for a case's zip file."""
    return case.with_name(f".{case.name}{_UNPACKING}")


def unpack_hidden(archive: Path, case: Path, limits: ZipLimits, min_free_gb: float) -> None:
    """Unpack a zip file into its hidden folder.

    Args:
        archive: the zip file.
        case: folder that the content will be shown as.
        limits: maximum content of the zip file.
        min_free_gb: space that must stay free on the inbox's disk, 10⁹ bytes.

    Raises:
        UnsafeArchive: the zip file is refused.
        StorageUnavailable: the disk has no room for the content.
    """
    if is_unfinished(case.name):
        raise UnsafeArchive(
            f"the zip file would become a case named {case.name}, and names that start with a dot "
            "or end like a temporary file mark unfinished copies: rename the zip file"
        )
    with atomic.storage_errors():
        size, free = sum(unpacked_sizes(archive).values()), shutil.disk_usage(case.parent).free
        if size <= limits.bytes and free - size < min_free_gb * 1e9:
            raise StorageUnavailable(
                f"the content of the zip file needs {size / 1e9:.1f} GB and {free / 1e9:.1f} GB "
                f"are free, of which min_free_gb ({min_free_gb:g} GB) must stay free: free disk "
                "space"
            )
        shutil.rmtree(hidden_folder(case), ignore_errors=True)  # left by a crash
        unpack(archive, hidden_folder(case), limits)


def show(case: Path) -> None:
    """Rename the hidden folder to the case's name.

    Raises:
        OSError: storage failed.
    """
    hidden_folder(case).rename(case)
    atomic.sync_folder(case.parent)


def sweep_unpacked(inbox: Path, case_depth: int) -> None:
    """Remove hidden folders without a zip file.

    They are left when the watcher is killed while it unpacks.

    Raises:
        OSError: the inbox cannot be read.
    """
    for parent in parent_folders(inbox, case_depth):
        for hidden in parent.glob(f".*{_UNPACKING}"):
            name = hidden.name[1:].removesuffix(_UNPACKING)
            if hidden.is_dir() and not any(
                path.suffix.lower() == ".zip" for path in parent.glob(f"{escape(name)}.*")
            ):
                shutil.rmtree(hidden, ignore_errors=True)
