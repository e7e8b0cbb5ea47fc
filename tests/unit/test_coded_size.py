"""The gate knows how many bytes a lossless JPEG image needs, for every predictor."""

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGLossless

from ctdeface_worker.verification.instances.coded_size import has_needed_size

ROWS, COLUMNS = 20, 24


def image(precision: int) -> NDArray[np.uint16]:
    """Noise and steps, also from the darkest to the brightest value."""
    made = np.random.default_rng(precision).integers(0, 1 << precision, (ROWS, COLUMNS))
    made[5:10] = made[5:10] // 64
    made[12, ::2] = (1 << precision) - 1
    made[12, 1::2] = 0
    return made.astype(np.uint16)


def predicted(pixels: NDArray[np.uint16], at: tuple[int, int], predictor: int, bits: int) -> int:
    """The prediction of one pixel (ITU-T T.81 table H.1)."""
    row, column = at
    if row == 0 or column == 0:
        if row == column == 0:
            return 1 << (bits - 1)
        return int(pixels[0, column - 1] if row == 0 else pixels[row - 1, 0])
    left, above, both = (
        int(pixels[row, column - 1]),
        int(pixels[row - 1, column]),
        int(pixels[row - 1, column - 1]),
    )
    return (
        left,
        above,
        both,
        left + above - both,
        left + ((above - both) >> 1),
        above + ((left - both) >> 1),
        (left + above) // 2,
    )[predictor - 1]


def encoded(pixels: NDArray[np.uint16], predictor: int, bits: int) -> bytes:
    """Encode one pixel after the other; all categories have codes of five bits."""
    text = ""
    for row, column in np.ndindex(ROWS, COLUMNS):
        guess = predicted(pixels, (row, column), predictor, bits)
        difference = (int(pixels[row, column]) - guess) % 65536
        difference -= 65536 if difference > 32768 else 0
        category = abs(difference).bit_length()
        text += f"{category:05b}"
        if 0 < category < 16:
            low = difference if difference > 0 else difference + (1 << category) - 1
            text += f"{low:0{category}b}"
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    return b"".join(
        (
            b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, bits, ROWS, COLUMNS, 1) + b"\1\x11\0",
            b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
            b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, predictor, 0, 0]),
            coded,
            b"\xff\xd9",
        )
    )


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_the_coded_size_is_exact(predictor: int, bits: int) -> None:
    """A byte more, or some bytes less, is noticed; the frame is one that GDCM decodes."""
    pixels = image(bits)
    frame = encoded(pixels, predictor, bits)
    options: dict[str, Any] = {
        "rows": ROWS,
        "columns": COLUMNS,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": bits,
        "pixel_representation": 0,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    decoded, _ = get_decoder(JPEGLossless).as_array(
        encapsulate([frame]), raw=True, decoding_plugin="gdcm", **options
    )
    assert np.array_equal(decoded, pixels)
    assert has_needed_size(frame, pixels)
    assert not has_needed_size(frame[:-2] + b"\1" + frame[-2:], pixels)
    assert not has_needed_size(frame[:-5] + frame[-2:], pixels)
