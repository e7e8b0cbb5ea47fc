"""The memory that a case may need, checked before it is taken.

Headers can announce any size, so nothing is inflated, decoded or allocated on their word alone.
"""

from dataclasses import dataclass

from ctdeface_shared.errors import TooLarge

_WORD_BYTES = 2
_VOXEL_BYTES = 5
"""A voxel in HU, and whether it is valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """The maximum sizes of files and memory while reading.

    Attributes:
        file_bytes: size of one file, also of its decompressed pixels.
        memory_bytes: memory of the process; None if it is not limited.
    """

    file_bytes: int = 4 * 10**9
    memory_bytes: int | None = None

    def check_file(self, name: str, size: int) -> None:
        """Check the size of a file.

        Raises:
            TooLarge: it is larger than one file may be.
        """
        if size > self.file_bytes:
            raise TooLarge(
                f"{name} has {_gb(size)}, and limits.file_gb allows {_gb(self.file_bytes)} for one "
                "file: remove it, or raise the limit"
            )

    def check_pixels(self, name: str, rows: int, columns: int) -> None:
        """Check the size of an image.

        Raises:
            TooLarge: its pixels are larger than one file may be.
        """
        size = rows * columns * _WORD_BYTES
        if size > self.file_bytes:
            raise TooLarge(
                f"{name} announces {rows} x {columns} pixels, {_gb(size)}, and limits.file_gb "
                f"allows {_gb(self.file_bytes)} for one file: remove it, or raise the limit"
            )

    def check_held(self, size: int) -> None:
        """Check the size of all files that are held at the same time.

        Raises:
            TooLarge: they do not fit into the memory.
        """
        self._check_memory("the DICOM files of the case", size)

    def check_volume(self, image: tuple[int, int], images: int, slices: int) -> None:
        """Check the size of a decoded series.

        It is the least that is needed; finding the face takes more.

        Args:
            image: rows and columns.
            images: number of instances, whose pixels are kept.
            slices: number of slices of the volume.

        Raises:
            TooLarge: it does not fit into the memory.
        """
        rows, columns = image
        size = rows * columns * (images * _WORD_BYTES + slices * _VOXEL_BYTES)
        self._check_memory(f"a series of {images} images with {rows} x {columns} pixels", size)

    def _check_memory(self, subject: str, size: int) -> None:
        if self.memory_bytes is not None and size > self.memory_bytes:
            raise TooLarge(
                f"{subject} needs at least {_gb(size)} of memory, and work.memory_limit_gb allows "
                f"{_gb(self.memory_bytes)}: split the case, or use fewer jobs or a machine with "
                "more memory"
            )


USUAL_LIMITS = ReadLimits()


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
