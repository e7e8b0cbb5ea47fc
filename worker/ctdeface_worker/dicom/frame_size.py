"""Read the size that a compressed image announces, before a decoder allocates it.

Formats: ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS), T.800 annex A (JPEG 2000), DICOM PS3.5
annex G (run lengths).
"""

import struct
from itertools import pairwise
from typing import NamedTuple

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Second byte of the markers that begin a frame of JPEG or JPEG-LS."""
_PRESET, _SIZE_PRESET, _SCAN = 0xF8, 4, 0xDA
_RUN_LENGTH_HEADER = struct.Struct("<16L")
_SPARE_PIXELS = 128
"""A last run may be this much longer than the image."""
_MOST_TILES = 4096
"""A decoder allocates kilobytes for each tile of JPEG 2000."""


class FrameSize(NamedTuple):
    """What a compressed image announces.

    Attributes:
        rows: number of rows.
        columns: number of columns.
        components: values per pixel.
    """

    rows: int
    columns: int
    components: int


def announced_size(frame: bytes) -> FrameSize | None:
    """Return the size of a JPEG, JPEG-LS or JPEG 2000 image.

    None if the image is damaged, has a size of another kind, or thousands of tiles.
    """
    try:
        if frame.startswith(_JPEG_2000):
            return _jpeg_2000(frame)
        return _jpeg(frame) if frame.startswith(_JPEG) else None
    except (struct.error, IndexError):
        return None


def _jpeg(frame: bytes) -> FrameSize | None:
    at, found = len(_JPEG), None
    while frame[at] == 0xFF:
        marker, length = frame[at + 1], struct.unpack_from(">H", frame, at + 2)[0]
        if marker == _SCAN:
            return found
        if marker in _FRAMES:
            if found is not None:
                return None
            found = FrameSize(*struct.unpack_from(">HHB", frame, at + 5))
        elif (marker == _PRESET and frame[at + 4] == _SIZE_PRESET) or length < 2:
            return None
        at += 2 + length
    return None


def _jpeg_2000(frame: bytes) -> FrameSize | None:
    right, bottom, left, top, width, height, tile_left, tile_top, components = struct.unpack_from(
        ">8LH", frame, 8
    )
    if not width or not height or right <= left or bottom <= top:
        return None
    tiles = -(-(right - tile_left) // width) * -(-(bottom - tile_top) // height)
    if tiles > _MOST_TILES:
        return None
    return FrameSize(bottom - top, right - left, components)


def runs_exceed(frame: bytes, pixels: int) -> bool:
    """Return whether a run-length encoded image expands to more than its pixels.

    The count stops there, so it costs no more than a sound image.

    Args:
        frame: one image, with its header.
        pixels: bytes in each of its planes.
    """
    if len(frame) < _RUN_LENGTH_HEADER.size:
        return False  # a decoder refuses it
    count, *offsets = _RUN_LENGTH_HEADER.unpack_from(frame)
    return any(
        _expands_beyond(frame, start, end, pixels + _SPARE_PIXELS)
        for start, end in pairwise([*offsets[:count], len(frame)])
    )


def _expands_beyond(frame: bytes, at: int, end: int, most: int) -> bool:
    made, end = 0, min(end, len(frame))
    while at < end and made <= most:
        control = frame[at]
        if control < 128:
            made += control + 1
            at += control + 2
        else:
            made += (257 - control) % 129
            at += 2 if control > 128 else 1
    return made > most
