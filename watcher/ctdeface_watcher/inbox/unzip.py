"""A dropped zip file becomes a folder, whole or not at all; whatever is odd about it refuses it."""

import errno
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from calendar import timegm
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ctdeface_shared.errors import UnsafeArchive
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.case_folders import is_unfinished

_BLOCK = 1 << 20
_ENCRYPTED = 0x1
_DEEPEST = 64
"""Names in a path; no archive nests as deep, and what walks through folders must not run out of stack."""
_NOT_CONTENT = ("__MACOSX", ".DS_Store")
"""What macOS adds to zip files beside the content."""
_ODD_NAMES = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLimits:
    """How much a zip file may hold.

    Attributes:
        files: at most.
        bytes: of all files together, unpacked.
        ratio: unpacked bytes per byte of the zip file.
    """

    files: int
    bytes: int
    ratio: float = 1000.0


def unpack(archive: Path, folder: Path, limits: ZipLimits) -> None:
    """Unpack a zip file into a new folder; the archive stays. The same archive gives the same names, sizes and times again.

    Args:
        archive: the zip file.
        folder: to make; its parent is there.
        limits: what is too much.

    Raises:
        UnsafeArchive: the archive is refused; nothing of it is left.
        FileExistsError: there is such a folder already.
        OSError: storage failed; nothing is left.
    """
    folder.mkdir()
    whole = False
    try:
        _extract(archive, folder, limits)
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
            "the zip file is damaged or packed in a way that is not known here: unpack it by hand and drop the folder"
        ) from error
    finally:
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)


def holds(archive: Path, folder: Path) -> bool:
    """Whether a folder consists of what a zip file holds, by names, sizes and checksums.

    Raises:
        OSError: one of them cannot be read.
    """
    try:
        packed = _members(archive)
    except UnsafeArchive:
        return False
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()
    }
    return packed.keys() == files.keys() and all(
        _is_content_of(member, files[name]) for name, member in packed.items()
    )


def unpacked_sizes(archive: Path) -> Mapping[str, int]:
    """Return the size of each file in a zip file, as its directory tells.

    Raises:
        UnsafeArchive: it has no readable directory.
        OSError: it cannot be read.
    """
    return {name: member.file_size for name, member in _members(archive).items()}


def _members(archive: Path) -> Mapping[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(archive) as packed:
            return {
                PurePosixPath(member.filename).as_posix(): member for member in _content(packed)
            }
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UnsafeArchive("the zip file is damaged: copy it again") from error


def _is_content_of(member: zipfile.ZipInfo, path: Path) -> bool:
    """Whether a file is what a member unpacks to; other slices of the same scanner have the same names and sizes."""
    if path.is_symlink() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == member.CRC


def _extract(archive: Path, folder: Path, limits: ZipLimits) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = _content(packed)
        most = min(limits.bytes, limits.ratio * archive.stat().st_size)
        _check(members, limits, most)
        left = most
        for member in members:
            path = folder / PurePosixPath(member.filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as source, path.open("xb") as target:
                while block := source.read(_BLOCK):
                    left -= len(
                        block
                    )  # counted here as well: the directory of a zip file may lie about sizes
                    _refuse(left < 0, "the zip file unpacks to more than it says")
                    target.write(block)
            os.utime(path, (_seconds(member), _seconds(member)))


def _content(packed: zipfile.ZipFile) -> Sequence[zipfile.ZipInfo]:
    """Return the members that are files, without what macOS adds."""
    return [
        member
        for member in packed.infolist()
        if not member.is_dir() and not set(member.filename.split("/")) & set(_NOT_CONTENT)
    ]


def _check(members: Sequence[zipfile.ZipInfo], limits: ZipLimits, most: float) -> None:
    _refuse(not members, "the zip file is empty")
    _refuse(
        len(members) > limits.files,
        f"the zip file holds more than {limits.files} files (watch.zip_files)",
    )
    size = sum(member.file_size for member in members)
    _refuse(
        size > limits.bytes,
        f"the zip file unpacks to more than {limits.bytes / 1e9:g} GB (watch.zip_gb)",
    )
    _refuse(
        size > most,
        f"the zip file unpacks to more than {limits.ratio:g} times its size (watch.zip_ratio)",
    )
    _refuse(
        len({member.filename for member in members}) < len(members),
        "the zip file holds two files of one name",
    )
    for member in members:
        name = PurePosixPath(member.filename)
        _refuse(
            len(name.parts) > _DEEPEST,
            f"the zip file holds more than {_DEEPEST} folders in each other",
        )
        outside = name.is_absolute() or ".." in name.parts or "\\" in member.filename
        _refuse(outside, "the zip file holds a path that leads out of its folder")
        _refuse(
            any(is_unfinished(part) for part in name.parts),
            "the zip file holds a hidden file or one whose copy was not finished",
        )
        _refuse(
            bool(member.flag_bits & _ENCRYPTED),
            "the zip file is encrypted: unpack it by hand and drop the folder",
        )
        kind = stat.S_IFMT(member.external_attr >> 16)
        _refuse(
            kind not in {0, stat.S_IFREG},
            "the zip file holds a link or another thing that is no file",
        )


def _seconds(member: zipfile.ZipInfo) -> int:
    """Time of a member, read as UTC, for a zip file knows no time zone; one that is no date is the first that a zip file can hold."""
    with suppress(ValueError, OverflowError):
        return timegm((*member.date_time, 0, 0, 0))
    return timegm((1980, 1, 1, 0, 0, 0, 0, 0, 0))


def _refuse(wrong: bool, message: str) -> None:
    if wrong:
        raise UnsafeArchive(message)
