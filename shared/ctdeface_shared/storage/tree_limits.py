"""The maximum size of a case's folder."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLimits:
    """The maximum content of a case's folder.

    Attributes:
        files: number of files.
        bytes: size of all files together.
        file_bytes: size of one file.
        depth: levels of folders below the case's folder.
        path_bytes: length of a path relative to the case's folder, in bytes of UTF-8.
    """

    files: int
    bytes: int
    file_bytes: int
    depth: int
    path_bytes: int
