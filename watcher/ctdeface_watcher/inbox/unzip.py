"""Unpacking of a zip file, completely or not at all.

Anything unusual about a zip file refuses it.
"""

import errno
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from calendar import timegm
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ctdeface_shared.errors import UnsafeArchive
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.case_folders import is_unfinished

_BLOCK = 1 << 20
_ENCRYPTED = 0x1
_DEEPEST = 64
"""Maximum number of names in a path; deeper folders would exhaust the stack of later walks."""
_LARGEST_DIRECTORY = 32 * 10**6
"""Bytes; an entry has about a hundred, and needs ten times that in memory."""
_DIRECTORY_SIZE = 5
"""Position in what zipfile reads of the end of a file."""
_NOT_CONTENT = ("__MACOSX", ".DS_Store")
"""Names that macOS adds to zip files beside the content."""
_ODD_NAMES = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLimits:
    """The maximum content of a zip file.

    Attributes:
        files: number of files.
        bytes: unpacked size of all files together.
        ratio: unpacked bytes per byte of the zip file.
    """

    files: int
    bytes: int
    ratio: float = 1000.0


def unpack(
    archive: Path,
    folder: Path,
    limits: ZipLimits,
    on_file: Callable[[], None] = lambda: None,
) -> None:
    """Unpack a zip file into a new folder; the zip file stays.

    The same zip file gives the same names, sizes and times again.

    Args:
        archive: the zip file.
        folder: folder to create; its parent exists.
        limits: maximum content.
        on_file: called before each file is written; may raise an error, and nothing is left.

    Raises:
        UnsafeArchive: the zip file is refused; nothing of it is left.
        FileExistsError: the folder exists.
        OSError: storage failed; nothing is left.
    """
    folder.mkdir()
    whole = False
    try:
        _extract(archive, folder, limits, on_file)
        atomic.sync_tree(folder)
        whole = True
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno not in _ODD_NAMES:
            raise
        raise UnsafeArchive(
            "the zip file is damaged or uses an unsupported compression: "
            "unpack it and drop the folder"
        ) from error
    finally:
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)


def unpacked_sizes(archive: Path) -> Mapping[str, int]:
    """Return each file's size from the zip file's directory.

    Raises:
        UnsafeArchive: the directory cannot be read.
        OSError: the file cannot be read.
    """
    return {name: member.file_size for name, member in _members(archive).items()}


def _require_small_directory(archive: Path) -> None:
    """Check the size of a zip file's directory, which is read as a whole.

    Raises:
        UnsafeArchive: it is larger than the directory of any case.
        OSError: the file cannot be read.
    """
    with archive.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # noqa: SLF001  as zipfile
    if end and end[_DIRECTORY_SIZE] > _LARGEST_DIRECTORY:
        raise UnsafeArchive(
            f"the zip file has a directory of {end[_DIRECTORY_SIZE] / 1e6:.0f} MB, and at most "
            f"{_LARGEST_DIRECTORY / 1e6:.0f} MB are allowed: split it"
        )


def _members(archive: Path) -> Mapping[str, zipfile.ZipInfo]:
    _require_small_directory(archive)
    try:
        with zipfile.ZipFile(archive) as packed:
            return {
                PurePosixPath(member.filename).as_posix(): member for member in _content(packed)
            }
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UnsafeArchive("the zip file is damaged: copy it again") from error


def _extract(archive: Path, folder: Path, limits: ZipLimits, on_file: Callable[[], None]) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = _content(packed)
        allowed = min(limits.bytes, limits.ratio * archive.stat().st_size)
        _require_allowed(members, limits, allowed)
        for member in members:
            on_file()
            path = folder / PurePosixPath(member.filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as source, path.open("xb") as target:
                while block := source.read(_BLOCK):
                    allowed -= len(block)  # the sizes in the directory may be wrong
                    if allowed < 0:
                        raise UnsafeArchive(
                            "the zip file unpacks to more than its directory lists: create it again"
                        )
                    target.write(block)
            os.utime(path, (_seconds(member), _seconds(member)))


def _content(packed: zipfile.ZipFile) -> Sequence[zipfile.ZipInfo]:
    """Return the members that are content files."""
    return [
        member
        for member in packed.infolist()
        if not member.is_dir() and not set(member.filename.split("/")) & set(_NOT_CONTENT)
    ]


def _require_allowed(
    members: Sequence[zipfile.ZipInfo], limits: ZipLimits, allowed_bytes: float
) -> None:
    """Check the members before unpacking.

    Raises:
        UnsafeArchive: a limit is exceeded, or a member cannot be unpacked safely.
    """
    problem = _excess(members, limits, allowed_bytes)
    problems = (problem, *(_unsafe(member) for member in members))
    for found in problems:
        if found is not None:
            raise UnsafeArchive(f"the zip file {found}")


def _excess(
    members: Sequence[zipfile.ZipInfo], limits: ZipLimits, allowed_bytes: float
) -> str | None:
    """Return which limit the members exceed, if any."""
    size = sum(member.file_size for member in members)
    if not members:
        return "is empty, and a case needs at least one file: drop the case again"
    if len(members) > limits.files:
        return (
            f"holds {len(members)} files, and at most {limits.files} are allowed: split it, or "
            "raise watch.zip_files"
        )
    if size > limits.bytes:
        return (
            f"unpacks to {size / 1e9:.3g} GB, and at most {limits.bytes / 1e9:g} GB are allowed: "
            "split it, or raise watch.zip_gb"
        )
    if size > allowed_bytes:
        return (
            f"unpacks to {size / 1e9:.3g} GB, and at most {limits.ratio:g} times its own size is "
            "allowed: unpack it and drop the folder, or raise watch.zip_ratio"
        )
    if len({member.filename for member in members}) < len(members):
        return (
            "holds two files with the same name, and names must differ: unpack it and drop the "
            "folder"
        )
    return None


def _unsafe(member: zipfile.ZipInfo) -> str | None:
    """Return why a member cannot be unpacked safely."""
    name = PurePosixPath(member.filename)
    if len(name.parts) > _DEEPEST:
        return (
            f"nests {len(name.parts)} levels of folders, and at most {_DEEPEST} are allowed: "
            "create it from the folder that holds the images"
        )
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
        return "holds a path that leads out of its folder: unpack it and drop the folder"
    if any(is_unfinished(part) for part in name.parts):
        return (
            "holds a name that starts with a dot or marks an unfinished copy: remove that file "
            "and create the zip file again"
        )
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted, and no password can be given: unpack it and drop the folder"
    if stat.S_IFMT(member.external_attr >> 16) not in {0, stat.S_IFREG}:
        return (
            "holds a link or a device, and only files and folders are allowed: put the files "
            "themselves into it"
        )
    return None


def _seconds(member: zipfile.ZipInfo) -> int:
    """Return the time of a member as seconds since the epoch.

    Zip files have no time zone, so the time is read as UTC. An invalid date becomes 1980-01-01, the
    first that a zip file can hold.
    """
    with suppress(ValueError, OverflowError):
        return timegm((*member.date_time, 0, 0, 0))
    return timegm((1980, 1, 1, 0, 0, 0, 0, 0, 0))
