"""Check that no other image follows a compressed one."""

import re
import struct

from pydicom.encaps import generate_fragments
from pydicom.uid import JPEG2000, JPEG2000Lossless, RLELossless

from ctdeface_worker.verification.instances.elements import DAMAGE

_END_OF_IMAGE = b"\xff\xd9"
"""End of a JPEG, JPEG-LS or JPEG 2000 image; coded data cannot contain it, header segments can."""
_TILE_PART = b"\xff\x90"
_MARKER = re.compile(rb"\xff[\x80-\xfe]")
"""A marker: in coded data a byte of 255 is otherwise followed by a smaller one.

See ITU-T T.81 section B.1.1 for JPEG and T.87 annex A for JPEG-LS.
"""


def is_one_frame(value: bytes, syntax: str, pixels: int) -> bool:
    """Return whether pixel data hold one image, then zeros only.

    The image has 16-bit pixels. It may consist of several fragments, unless it is run-length
    encoded (DICOM PS3.5 sections A.4 and G.2).
    """
    try:
        table, *fragments = generate_fragments(value)
    except DAMAGE:
        return False
    if len(table) > 4 or not fragments:
        return False
    frame = b"".join(fragments)
    if syntax != RLELossless:
        end = _jpeg_2000_end(frame) if syntax in {JPEG2000, JPEG2000Lossless} else _jpeg_end(frame)
        return end is not None and not frame[end:].strip(b"\0")
    return len(fragments) == 1 and len(frame) > 64 and _is_one_run_length_image(frame, pixels)


def _jpeg_end(frame: bytes) -> int | None:
    """Return the offset after a JPEG or JPEG-LS image.

    Segments are skipped by their lengths, coded data up to the next marker.
    """
    at = 2
    while marker := _MARKER.search(frame, at):
        at = marker.end()
        if marker[0] == _END_OF_IMAGE:
            return at
        if marker[0] == b"\xff\xd8":
            return None  # another image begins before this one has ended
        if not b"\xff\xd0" <= marker[0] <= b"\xff\xd7":  # restarts have no length
            at += int.from_bytes(frame[at : at + 2], "big")
    return None


def _jpeg_2000_end(frame: bytes) -> int | None:
    """Return the offset after a JPEG 2000 codestream.

    Tile-parts contain their lengths; 0 means up to the end (ITU-T T.800 annex A).
    """
    at = 2
    while 0 < at < len(frame) - 1:
        if frame[at : at + 2] == _END_OF_IMAGE:
            return at + 2
        if frame[at : at + 2] == _TILE_PART:
            length = int.from_bytes(frame[at + 6 : at + 10], "big")
            at = at + length if length else frame.find(_END_OF_IMAGE, at + 12)
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _is_one_run_length_image(frame: bytes, pixels: int) -> bool:
    count, *offsets = struct.unpack_from("<16L", frame)
    ends = [*offsets[1:count], len(frame)]
    if count != 2 or offsets[0] != 64 or any(offsets[2:]):
        return False
    stops = [_run_length_end(frame, start, pixels) for start in offsets[:2]]
    return all(
        stop <= end and len(frame[stop:end].strip(b"\0")) < 2
        for stop, end in zip(stops, ends, strict=True)
    )


def _run_length_end(frame: bytes, at: int, pixels: int) -> int:
    """Return the end of a byte plane (DICOM PS3.5 annex G)."""
    made = 0
    while made < pixels and at < len(frame):
        control = frame[at]
        if control < 128:
            made += control + 1
            at += control + 2
        else:
            made += (257 - control) % 129
            at += 2 if control > 128 else 1
    return at
