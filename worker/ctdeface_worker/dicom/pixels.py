"""Decode and encode pixel data in all supported syntaxes."""

import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ctdeface_shared.errors import UnreadableInstance, UnsupportedObject, UnsupportedTransferSyntax
from ctdeface_worker.dicom import jpeg_lossless
from ctdeface_worker.dicom.frame_size import announced_size, runs_exceed
from ctdeface_worker.dicom.layout import Layout
from ctdeface_worker.imaging.domain import PixelFormat

WordArray: TypeAlias = NDArray[np.uint16]
StoredArray: TypeAlias = NDArray[np.int32]

WORD_BITS = 16
BRIGHTEST_HU = 10_000.0
"""Nothing in a patient is brighter, so one padding value above it cannot hide tissue."""
NATIVE = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)
_ENCODED_AGAIN = frozenset(
    {RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1}
)
"""Lossless syntaxes for which a maintained encoder exists."""
_DECODED = _ENCODED_AGAIN | {JPEG2000, JPEGLSNearLossless}
_MOST_CODED_BYTES = 6
"""Bytes of a compressed pixel of two bytes; lossless encoders need hardly more than two."""
_CODED_HEADER_BYTES = 1 << 16
_PLUGINS = {
    RLELossless: "pydicom",
    JPEG2000: "pylibjpeg",
    JPEG2000Lossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}
_ENCODERS = {RLELossless: "gdcm", JPEG2000Lossless: "pylibjpeg", JPEGLSLossless: "pyjpegls"}


def decode(layout: Layout, pixels: PixelFormat) -> WordArray:
    """Return the 16-bit words of the pixel data.

    The array is (row, column) in native byte order.

    Raises:
        UnreadableInstance: the pixel data are truncated, too long or damaged.
        UnsupportedTransferSyntax: no decoder is available.
    """
    element = layout.pixel_data
    if element is None:
        raise UnreadableInstance("the file has no pixel data, which a slice needs")
    data = memoryview(layout.data)[element.value : element.end]
    if layout.transfer_syntax_uid in NATIVE:
        return _words(data, pixels, ">u2" if not layout.little_endian else "<u2")
    if layout.transfer_syntax_uid not in _DECODED or not element.fragmented:
        name = UID(layout.transfer_syntax_uid).name
        raise UnsupportedTransferSyntax(
            f"the pixel data have the transfer syntax {name}, which cannot be decoded; convert the "
            "series to an uncompressed transfer syntax first"
        )
    return _decompress(bytes(data), pixels, layout.transfer_syntax_uid)


def _words(data: memoryview, pixels: PixelFormat, kind: str) -> WordArray:
    expected = pixels.rows * pixels.columns * 2
    if len(data) != expected:
        raise UnreadableInstance(
            f"the pixel data hold {len(data)} bytes, and {pixels.rows} x {pixels.columns} pixels "
            f"need {expected}; send the file again from its source"
        )
    return (
        np.frombuffer(data, dtype=kind)
        .reshape(pixels.rows, pixels.columns)
        .astype(np.uint16, copy=False)
    )


def _decompress(data: bytes, pixels: PixelFormat, syntax: str) -> WordArray:
    try:
        # pydicom warns about sizes; the shape of the result is checked below.
        with warnings.catch_warnings(action="ignore"):
            frames = list(generate_frames(data, number_of_frames=1))
            _require_announced_size(frames[0], pixels, syntax)
            decoded, _ = get_decoder(UID(syntax)).as_array(
                encapsulate(frames),
                raw=True,
                decoding_plugin=_PLUGINS.get(UID(syntax), "gdcm"),
                # A picture hidden in the unused bits must stay visible to `check_pixels`.
                **{**_image_keywords(pixels), "correct_unused_bits": False},
            )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UnreadableInstance(
            f"the compressed pixel data cannot be decoded ({error}); send the file again from its "
            "source"
        ) from error
    if decoded.shape != (pixels.rows, pixels.columns) or decoded.dtype.itemsize != 2:
        raise UnreadableInstance(
            f"the compressed pixel data hold {decoded.shape} pixels, and the header requires "
            f"{pixels.rows} x {pixels.columns} of 16 bits; send the file again from its source"
        )
    return np.ascontiguousarray(decoded).view(np.uint16)


def _require_announced_size(frame: bytes, pixels: PixelFormat, syntax: str) -> None:
    """Check that a decoder will not allocate more than the header announces.

    Raises:
        ValueError: the compressed image has another size, or is far longer than its pixels.
    """
    most_bytes = _MOST_CODED_BYTES * pixels.rows * pixels.columns + _CODED_HEADER_BYTES
    if len(frame) > most_bytes:
        raise ValueError(f"{len(frame)} bytes; at most {most_bytes} are expected")
    if syntax == RLELossless:
        if runs_exceed(frame, pixels.rows * pixels.columns):
            raise ValueError("its runs are longer than its pixels")
        return
    found = announced_size(frame)
    if found != (pixels.rows, pixels.columns, 1):
        size = "no size" if found is None else f"{found.rows} x {found.columns} pixels"
        raise ValueError(f"it announces {size}; {pixels.rows} x {pixels.columns} are required")


def encode(words: WordArray, pixels: PixelFormat, syntax: str) -> bytes | None:
    """Return words encapsulated in a lossless syntax.

    None if no encoder is available, or if the words do not decode to the same words.
    """
    if syntax not in _ENCODED_AGAIN:
        return None
    try:
        value = encapsulate([_frame(words, pixels, syntax)])
        decoded = _decompress(value, pixels, syntax)
    except (RuntimeError, ValueError, UnreadableInstance):
        return None
    return value if np.array_equal(decoded, words) else None


def _frame(words: WordArray, pixels: PixelFormat, syntax: str) -> bytes:
    if syntax in jpeg_lossless.SYNTAXES:
        return jpeg_lossless.encode_frame(words.astype("<u2").tobytes(), pixels, syntax)
    image = words.view(np.int16) if pixels.signed else words
    return bytes(
        get_encoder(UID(syntax)).encode(
            image, encoding_plugin=_ENCODERS[UID(syntax)], **_image_keywords(pixels)
        )
    )


def _image_keywords(pixels: PixelFormat) -> dict[str, Any]:
    return {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }


def padding_mask(words: WordArray, pixels: PixelFormat) -> NDArray[np.bool_]:
    """Return where words are padding, which means "no measurement".

    Padding is compared as whole 16-bit words, as scanners write it.
    """
    if pixels.padding is None:
        return np.zeros(words.shape, dtype=bool)
    whole = words.view(np.int16) if pixels.signed else words
    low, high = pixels.padding
    return np.asarray((whole >= low) & (whole <= high))


def stored_values(words: WordArray, pixels: PixelFormat) -> NDArray[np.int16] | WordArray:
    """Return the integers in the low bits, sign extended."""
    whole: NDArray[np.int16] | WordArray = words.view(np.int16) if pixels.signed else words
    unused = WORD_BITS - pixels.bits_stored
    if not unused:
        return whole
    return np.right_shift(np.left_shift(whole, unused), unused)


def unused_bits_are_empty(words: WordArray, pixels: PixelFormat) -> bool:
    """Return whether the bits above bits_stored carry no information.

    They hold zeros, the sign, or the bits of one padding value.
    """
    if pixels.bits_stored == WORD_BITS:
        return True
    low = stored_values(words, pixels).view(np.uint16)
    zeros = words & np.uint16((1 << pixels.bits_stored) - 1)
    used = (words != low) & (words != zeros)
    if not used.any():
        return True
    whole = words[used]
    # A single value cannot draw a picture.
    return bool(padding_mask(words, pixels)[used].all() and whole.min() == whole.max())


def with_stored_value(
    words: WordArray, value: int, where: NDArray[np.bool_], pixels: PixelFormat
) -> WordArray:
    """Return words with a stored value set at some pixels.

    Unused bits are filled like those of the image: with the sign or with zeros.
    """
    sign_bit = np.uint16(1 << (pixels.bits_stored - 1))
    bits = value & ((1 << pixels.bits_stored) - 1)
    above = 0xFFFF & ~((1 << pixels.bits_stored) - 1)
    negative = words[(words & sign_bit) != 0]
    zeros_above = bool(negative.size) and not (negative & np.uint16(above)).any()
    if pixels.signed and value < 0 and not (above and zeros_above):
        bits |= above
    edited = words.copy()
    edited[where] = bits
    return edited


def check_pixels(words: WordArray, pixels: PixelFormat, highest_padding_hu: float) -> None:
    """Refuse pixels that could hide an image or tissue.

    Raises:
        UnsupportedObject: unused bits carry information, or padding voxels could be tissue.
    """
    if not unused_bits_are_empty(words, pixels):
        raise UnsupportedObject(
            "the unused bits of the pixel data hold values, perhaps another picture of the face; "
            "they must be empty: export the series without overlays in its pixels"
        )
    if pixels.padding is not None:
        whole = words.view(np.int16) if pixels.signed else words
        hu = whole[padding_mask(words, pixels)] * pixels.slope + pixels.intercept
        bright = np.unique(hu[hu > highest_padding_hu])
        if bright.size > 1 or (bright < BRIGHTEST_HU).any():
            raise UnsupportedObject(
                f"voxels marked as padding reach {bright.max():.0f} HU and could hide tissue or a "
                f"picture; at most {highest_padding_hu:.0f} HU, or one value of at least "
                f"{BRIGHTEST_HU:.0f} HU, is allowed: export it again"
            )
