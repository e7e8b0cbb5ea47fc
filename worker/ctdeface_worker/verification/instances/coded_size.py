"""Compute how many bytes lossless JPEG needs for pixels.

Decoders ignore coded data behind the last pixel, where a picture could remain. The number of bits
follows from the pixels, the predictor and the Huffman table (ITU-T T.81 annex H).
"""

import numpy as np
from numpy.typing import NDArray

from ctdeface_worker.verification.instances.codestreams import Segment, segments_of

_FRAME, _TABLES, _SCAN = b"\xff\xc3", b"\xff\xc4", b"\xff\xda"
_LONGEST_CODE = 16
_FULL_RANGE = 1 << 16


def has_needed_size(frame: bytes, words: NDArray[np.uint16]) -> bool:
    """Return whether the coded data of a lossless JPEG image end with its last pixel.

    Args:
        frame: one image without restarts, as `codestreams.jpeg` accepts it.
        words: its pixels, (row, column).
    """
    segments = segments_of(frame)
    header = {segment.marker: segment.content for segment in segments}
    start = segments[-1].end
    coded = frame[start : frame.index(b"\xff\xd9", start)]
    scan = header[_SCAN]
    if scan[-1] & 0x0F or _FRAME not in header:
        return False
    lengths = _code_lengths(segments, scan[2] >> 4)
    categories = _categories(_differences(words, header[_FRAME][0], predictor=scan[3]))
    counts = np.bincount(categories, minlength=_LONGEST_CODE + 1)
    bits = sum(
        int(count) * (lengths.get(category, 0) + category % _LONGEST_CODE)
        for category, count in enumerate(counts)
    )
    return len(coded) == -(-bits // 8) + coded.count(b"\xff\0")


def _code_lengths(segments: list[Segment], wanted: int) -> dict[int, int]:
    """Return the bits of the code of each category in a table."""
    lengths: dict[int, int] = {}
    for segment in segments:
        at = 0
        while segment.marker == _TABLES and at < len(segment.content):
            number, counts = segment.content[at], segment.content[at + 1 : at + 17]
            at += 17
            for length, count in enumerate(counts, start=1):
                if number == wanted:
                    values = segment.content[at : at + count]
                    lengths.update(dict.fromkeys(values, length))
                at += count
    return lengths


def _differences(words: NDArray[np.uint16], precision: int, *, predictor: int) -> NDArray[np.int64]:
    """Return the differences to the predicted pixels, modulo 2^16."""
    pixels = words.astype(np.int64) & ((1 << precision) - 1)
    left, above, both = pixels[1:, :-1], pixels[:-1, 1:], pixels[:-1, :-1]
    predicted = np.empty_like(pixels)
    predicted[0, 0] = 1 << (precision - 1)
    predicted[0, 1:] = pixels[0, :-1]
    predicted[1:, 0] = pixels[:-1, 0]
    rules = {
        1: left,
        2: above,
        3: both,
        4: left + above - both,
        5: left + ((above - both) >> 1),
        6: above + ((left - both) >> 1),
        7: (left + above) >> 1,
    }
    predicted[1:, 1:] = rules.get(predictor, left)
    half = _FULL_RANGE // 2
    return (pixels - predicted + half - 1) % _FULL_RANGE - (half - 1)


def _categories(differences: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of bits of each magnitude."""
    magnitudes = np.abs(differences).ravel()
    return np.where(magnitudes > 0, np.frexp(magnitudes.astype(np.float64))[1], 0).astype(np.int64)
