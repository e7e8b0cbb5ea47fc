"""Makes sure that a compressed frame ends where its image ends, so that nothing of the former frame is left behind it."""

import struct

from pydicom.encaps import generate_fragments
from pydicom.uid import RLELossless

_END_OF_IMAGE = b"\xff\xd9"
"""Ends a JPEG, JPEG-LS or JPEG 2000 image; coded data cannot hold it."""


def is_one_frame(value: bytes, syntax: str, pixels: int) -> bool:
    """Tell whether encapsulated pixel data are one fragment with one image of 16-bit pixels and at most a padding byte."""
    fragments = list(generate_fragments(value))  # the offset table is the first
    if len(fragments) != 2 or len(fragments[0]) > 4:
        return False
    frame = fragments[1]
    if syntax != RLELossless:
        end = frame.find(_END_OF_IMAGE) + len(_END_OF_IMAGE)
        return end >= len(_END_OF_IMAGE) and frame[end:] in {b"", b"\0"}
    return len(frame) > 64 and _is_one_run_length_image(frame, pixels)


def _is_one_run_length_image(frame: bytes, pixels: int) -> bool:
    count, *offsets = struct.unpack_from("<16L", frame)
    ends = [*offsets[1:count], len(frame)]
    whole = all(end - _run_length_end(frame, start, pixels) in {0, 1} for start, end in zip(offsets[:count], ends, strict=True))
    return count == 2 and offsets[0] == 64 and not any(offsets[2:]) and whole


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
