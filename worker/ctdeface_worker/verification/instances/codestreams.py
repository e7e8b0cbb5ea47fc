"""Segments of JPEG, JPEG-LS and JPEG 2000 images.

Only segments that decoding needs are allowed, and short texts of encoders: any other could hold a
picture. Formats: ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS), T.800 annex A (JPEG 2000).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _TABLES, _APPLICATION, _COMMENT = b"\xff\xda", b"\xff\xc4", b"\xff\xe0", b"\xff\xfe"
_HEADER_LENGTHS = {
    b"\xff\xc3": 11,  # lossless frame of one component
    b"\xff\xf7": 11,  # JPEG-LS frame of one component
    b"\xff\xf8": 13,  # JPEG-LS preset parameters
    _SCAN: 8,
}
_VERSION = rb"\x00\x01[\x00-\x02][\x00-\x02]"
_JPEG_TEXTS = re.compile(
    rb"JFIF" + _VERSION + rb"(\x00.)\1\x00\x00|LJIF" + _VERSION + rb"(?:(\x00.)\2)?\x00{2,8}",
    re.DOTALL,
)
"""JFIF and its lossless sibling, with equal densities and without thumbnail."""
_ENCODER = re.compile(
    rb"(?:Created by OpenJPEG version |Kakadu-v?|LEAD Technologies(?: Inc\.?)? V|CharLS )"
    rb"[\d.]{1,12}\x00?"
)
_MOST_CATEGORIES = 17
_MARKER = re.compile(rb"\xff[\x80-\xff]")
"""A marker: in coded data a byte of 255 is otherwise followed by a smaller one."""
_STREAM, _SIZE, _TILE_PART, _DATA = b"\xff\x4f", b"\xff\x51", b"\xff\x90", b"\xff\x93"
_STREAM_COMMENT = b"\xff\x64"
_STREAM_LENGTHS = {
    _SIZE: 41,
    b"\xff\x52": 45,  # coding style
    b"\xff\x5c": 197,  # quantization
    b"\xff\x5e": 6,  # region of interest
}
_FOREIGN = (
    "the compressed image holds segments that decoding does not need and that could be a picture; "
    "only JFIF and short names of encoders are allowed"
)
_DAMAGED = "bytes other than zeros follow the compressed image"


class Codestream(NamedTuple):
    """Result of inspecting one image.

    Attributes:
        end: offset behind the image.
        problem: what it holds besides the image, as a sentence; else empty.
    """

    end: int
    problem: str = ""


class Segment(NamedTuple):
    """One segment of an image.

    Attributes:
        marker: its two bytes.
        content: behind marker and length.
        end: offset behind it.
    """

    marker: bytes
    content: bytes
    end: int


def jpeg(frame: bytes) -> Codestream:
    """Inspect a lossless JPEG or JPEG-LS image of one component and one scan."""
    if not frame.startswith(_START):
        return Codestream(0, _DAMAGED)
    seen: set[bytes] = set()
    for segment in _segments(frame, 2, _SCAN):
        repeated = segment.marker in seen and segment.marker != _TABLES
        if repeated or not _is_needed(segment):
            return Codestream(segment.end, _FOREIGN)
        seen.add(segment.marker)
        if segment.marker == _SCAN:
            found = _MARKER.search(frame, segment.end)
            ended = found is not None and found[0] == _END
            return Codestream(found.end(), "") if found and ended else Codestream(0, _DAMAGED)
    return Codestream(0, _DAMAGED)


def segments_of(frame: bytes) -> list[Segment]:
    """Return the segments of a JPEG image up to its first scan."""
    return list(_segments(frame, len(_START), _SCAN))


def jpeg_2000(frame: bytes) -> Codestream:
    """Inspect a JPEG 2000 codestream of one component.

    Tile-parts contain their lengths; 0 means up to the end.
    """
    if not frame.startswith(_STREAM + _SIZE):
        return Codestream(0, _DAMAGED)
    at, seen = 2, set[bytes]()
    while frame[at : at + 2] != _END:
        if frame[at : at + 2] == _TILE_PART:
            at = _tile_part_end(frame, at)
            if not at:
                return Codestream(0, _FOREIGN)
            continue
        segment = next(_segments(frame, at, b""), None)
        if segment is None or segment.marker in seen or not _is_needed_in_stream(segment):
            return Codestream(at, _FOREIGN if segment else _DAMAGED)
        seen.add(segment.marker)
        at = segment.end
    return Codestream(at + 2)


def _segments(frame: bytes, at: int, last: bytes) -> Iterator[Segment]:
    """Yield contiguous segments, up to the last marker."""
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at : at + 2], int.from_bytes(frame[at + 2 : at + 4], "big")
        end = at + 2 + length
        yield Segment(marker, frame[at + 4 : end], end)
        if length < 2 or marker == last:
            return
        at = end


def _is_needed(segment: Segment) -> bool:
    length = _HEADER_LENGTHS.get(segment.marker)
    if length is not None:
        return len(segment.content) == length - 2
    if segment.marker == _TABLES:
        return _are_tables(segment.content)
    if segment.marker == _APPLICATION:
        return _JPEG_TEXTS.fullmatch(segment.content) is not None
    return segment.marker == _COMMENT and _ENCODER.fullmatch(segment.content) is not None


def _are_tables(content: bytes) -> bool:
    """Return whether Huffman tables code differences of 16-bit pixels."""
    at = 0
    while at + 17 <= len(content):
        count = sum(content[at + 1 : at + 17])
        values = content[at + 17 : at + 17 + count]
        if (
            content[at] > 3
            or len(set(values)) != count
            or max(values, default=0) >= _MOST_CATEGORIES
        ):
            return False
        at += 17 + count
    return at == len(content) and len(content) <= 4 * (17 + _MOST_CATEGORIES)


def _is_needed_in_stream(segment: Segment) -> bool:
    if segment.marker == _STREAM_COMMENT:
        latin = segment.content.startswith(b"\0\1")
        return latin and _ENCODER.fullmatch(segment.content[2:]) is not None
    return len(segment.content) + 2 <= _STREAM_LENGTHS.get(segment.marker, 0)


def _tile_part_end(frame: bytes, at: int) -> int:
    """Return the end of a tile-part without segments, else 0."""
    length = int.from_bytes(frame[at + 6 : at + 10], "big")
    if frame[at + 12 : at + 14] != _DATA or 0 < length < 14:
        return 0
    return at + length if length else frame.find(_END, at + 14)
