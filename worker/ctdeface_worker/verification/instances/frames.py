"""Makes sure that a compressed frame ends where its image ends, so that no other image is left behind it."""

import struct

from pydicom.encaps import generate_fragments
from pydicom.uid import RLELossless

from ctdeface_worker.verification.instances.elements import DAMAGE

_END_OF_IMAGE = b"\xff\xd9"
"""Ends a JPEG, JPEG-LS or JPEG 2000 image; coded data cannot hold it."""


def is_one_frame(value: bytes, syntax: str, pixels: int) -> bool:
    """Tell whether encapsulated pixel data are one image of 16-bit pixels with nothing but zeros behind it.

    An image may come in several fragments, but for run lengths (DICOM PS3.5 sections A.4 and G.2).
    """
    try:
        table, *fragments = generate_fragments(value)
    except DAMAGE:
        return False
    if len(table) > 4 or not fragments:
        return False
    frame = b"".join(fragments)
    if syntax != RLELossless:
        _, end, behind = frame.partition(_END_OF_IMAGE)
        return bool(end) and not behind.strip(b"\0")
    return len(fragments) == 1 and len(frame) > 64 and _is_one_run_length_image(frame, pixels)


def _is_one_run_length_image(frame: bytes, pixels: int) -> bool:
    count, *offsets = struct.unpack_from("<16L", frame)
    ends = [*offsets[1:count], len(frame)]
    if count != 2 or offsets[0] != 64 or any(offsets[2:]):
        return False
    stops = [_run_length_end(frame, start, pixels) for start in offsets[:2]]
    return all(stop <= end and len(frame[stop:end].strip(b"\0")) < 2 for stop, end in zip(stops, ends, strict=True))


def _run_length_end(frame: bytes, at: int, pixels: int) -> int:
    """Return the offset behind the runs that make one byte plane (DICOM PS3.5 annex G)."""
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
