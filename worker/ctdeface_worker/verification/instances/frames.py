"""Check that a compressed image holds nothing but its pixels."""

import struct

from pydicom.encaps import generate_fragments
from pydicom.uid import JPEG2000, JPEG2000Lossless, RLELossless

from ctdeface_worker.verification.instances import codestreams
from ctdeface_worker.verification.instances.elements import DAMAGE

_FOLLOWING = "bytes other than zeros follow the compressed image"
_OFFSETS = "the offset table of the compressed image is not that of one frame"


def hidden_bytes(value: bytes, syntax: str, pixels: int) -> str:
    """Return what pixel data hold besides one image and zeros behind it.

    The image has 16-bit pixels. It may consist of several fragments, unless it is run-length
    encoded (DICOM PS3.5 sections A.4 and G.2).

    Returns:
        A sentence, or an empty text.
    """
    try:
        table, *fragments = generate_fragments(value)
    except DAMAGE:
        return _FOLLOWING
    if table not in {b"", bytes(4)}:
        return _OFFSETS
    frame = b"".join(fragments)
    if syntax == RLELossless:
        plain = len(fragments) == 1 and len(frame) > 64 and _is_one_run_length_image(frame, pixels)
        return "" if plain else _FOLLOWING
    is_2000 = syntax in {JPEG2000, JPEG2000Lossless}
    segments = codestreams.jpeg_2000(frame) if is_2000 else codestreams.jpeg(frame)
    if segments.problem:
        return segments.problem
    return _FOLLOWING if frame[segments.end :].strip(b"\0") else ""


def _is_one_run_length_image(frame: bytes, pixels: int) -> bool:
    count, *offsets = struct.unpack_from("<16L", frame)
    ends = [*offsets[1:count], len(frame)]
    if count != 2 or offsets[0] != 64 or any(offsets[2:]):
        return False
    stops = [_run_length_end(frame, start, pixels) for start in offsets[:2]]
    return all(
        0 < stop <= end and len(frame[stop:end].strip(b"\0")) < 2
        for stop, end in zip(stops, ends, strict=True)
    )


def _run_length_end(frame: bytes, at: int, pixels: int) -> int:
    """Return the end of a byte plane (DICOM PS3.5 annex G).

    0 if a run does not end with the last pixel.
    """
    made = 0
    while made < pixels and at < len(frame):
        control = frame[at]
        if control < 128:
            made += control + 1
            at += control + 2
        else:
            made += (257 - control) % 129
            at += 2 if control > 128 else 1
    return at if made == pixels else 0
