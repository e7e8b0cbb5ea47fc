"""A dropped zip file becomes a case: unpacked beside the inbox's cases under a hidden name, and shown by a rename when it is whole."""

import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ctdeface_shared.errors import PermanentError

_BLOCK = 1 << 20
_ENCRYPTED = 0x1


class UnsafeArchive(PermanentError):
    """A zip file that is damaged, too large, encrypted, or that would write outside its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a zip file may hold.

    Attributes:
        files: at most.
        bytes: of all files together, unpacked.
    """

    files: int
    bytes: int


def unpack(archive: Path, case: Path, limits: Limits) -> None:
    """Unpack a zip file into a new case, which appears at once; the archive stays.

    Args:
        archive: the zip file.
        case: folder to make; its parent is there.
        limits: what is too much.

    Raises:
        UnsafeArchive: the archive is refused; nothing of it is left.
        FileExistsError: there is such a case already.
        OSError: storage failed.
    """
    if case.exists():
        raise FileExistsError(case)
    hidden = case.with_name(f".{case.name}.unpacking")
    shutil.rmtree(hidden, ignore_errors=True)  # what a crash left behind
    hidden.mkdir()
    try:
        _extract(archive, hidden, limits)
        hidden.rename(case)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        ValueError,
        lzma.LZMAError,
        FileExistsError,
        NotADirectoryError,
        IsADirectoryError,
    ) as error:
        message = "the zip file is damaged or packed in a way that is not known here: unpack it by hand and drop the folder"
        raise UnsafeArchive(message) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _extract(archive: Path, folder: Path, limits: Limits) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [member for member in packed.infolist() if not member.is_dir()]
        _check(members, limits)
        left = limits.bytes
        for member in members:
            path = folder / PurePosixPath(member.filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as source, path.open("xb") as target:
                while block := source.read(_BLOCK):
                    left -= len(block)  # counted here as well: the directory of a zip file may lie about sizes
                    _refuse(left < 0, f"the zip file unpacks to more than {limits.bytes} bytes")
                    target.write(block)


def _check(members: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    _refuse(len(members) > limits.files, f"the zip file holds more than {limits.files} files")
    _refuse(sum(member.file_size for member in members) > limits.bytes, f"the zip file unpacks to more than {limits.bytes} bytes")
    names = [member.filename for member in members]
    _refuse(len(set(names)) < len(names), "the zip file holds two files of one name")
    for member in members:
        name = PurePosixPath(member.filename)
        outside = name.is_absolute() or ".." in name.parts or "\\" in member.filename
        _refuse(outside, "the zip file holds a path that leads out of its folder")
        _refuse(bool(member.flag_bits & _ENCRYPTED), "the zip file is encrypted")
        _refuse(stat.S_ISLNK(member.external_attr >> 16), "the zip file holds a link")


def _refuse(wrong: bool, message: str) -> None:  # noqa: FBT001  read as a sentence with its reason
    if wrong:
        raise UnsafeArchive(message)
