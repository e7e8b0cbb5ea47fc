"""Stored integers out of the pixel data and back into bytes, for every transfer syntax that is supported."""

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
from ctdeface_worker.dicom.layout import Layout
from ctdeface_worker.imaging.domain import PixelFormat

WordArray: TypeAlias = NDArray[np.uint16]
StoredArray: TypeAlias = NDArray[np.int32]

WORD_BITS = 16
BRIGHTEST_HU = 10_000.0
"""Nothing in a patient is brighter; padding above it hides nothing."""
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
"""Lossless syntaxes that a maintained encoder writes."""
_DECODED = _ENCODED_AGAIN | {JPEG2000, JPEGLSNearLossless}
_PLUGINS = {
    RLELossless: "pydicom",
    JPEG2000: "pylibjpeg",
    JPEG2000Lossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}


_ENCODERS = {RLELossless: "gdcm", JPEG2000Lossless: "pylibjpeg", JPEGLSLossless: "pyjpegls"}


def decode(layout: Layout, pixels: PixelFormat) -> WordArray:
    """Return the 16-bit words of the pixel data, (row, column), in this machine's byte order.

    Raises:
        UnreadableInstance: the pixel data are truncated, too long or damaged.
        UnsupportedTransferSyntax: no decoder.
    """
    element = layout.pixel_data
    if element is None:
        raise UnreadableInstance("there is no pixel data")
    data = memoryview(layout.data)[element.value : element.end]
    if layout.transfer_syntax_uid in NATIVE:
        return _words(data, pixels, ">u2" if not layout.little_endian else "<u2")
    if layout.transfer_syntax_uid not in _DECODED or not element.fragmented:
        name = UID(layout.transfer_syntax_uid).name
        raise UnsupportedTransferSyntax(
            f"pixel data in the transfer syntax {name} cannot be decoded here; convert the series to an uncompressed one first"
        )
    return _decompress(bytes(data), pixels, layout.transfer_syntax_uid)


def _words(data: memoryview, pixels: PixelFormat, kind: str) -> WordArray:
    expected = pixels.rows * pixels.columns * 2
    if len(data) != expected:
        raise UnreadableInstance(
            f"the pixel data hold {len(data)} bytes where {pixels.rows} x {pixels.columns} pixels need {expected}"
        )
    return (
        np.frombuffer(data, dtype=kind)
        .reshape(pixels.rows, pixels.columns)
        .astype(np.uint16, copy=False)
    )


def _decompress(data: bytes, pixels: PixelFormat, syntax: str) -> WordArray:
    try:
        with warnings.catch_warnings(action="ignore"):  # about sizes; what comes out is checked
            frames = list(generate_frames(data, number_of_frames=1))
            decoded, _ = get_decoder(UID(syntax)).as_array(
                encapsulate(frames),
                raw=True,
                decoding_plugin=_PLUGINS.get(UID(syntax), "gdcm"),
                **{
                    **_image_keywords(pixels),
                    "correct_unused_bits": False,
                },  # what hides in them must be seen
            )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UnreadableInstance(f"the compressed pixel data cannot be decoded: {error}") from error
    if decoded.shape != (pixels.rows, pixels.columns) or decoded.dtype.itemsize != 2:
        raise UnreadableInstance(
            f"the compressed pixel data hold {decoded.shape} pixels where the header says {pixels.rows} x {pixels.columns}"
        )
    return np.ascontiguousarray(decoded).view(np.uint16)


def encode(words: WordArray, pixels: PixelFormat, syntax: str) -> bytes | None:
    """Compress words losslessly into an encapsulated value in the same syntax; None where no encoder is at hand or the words do not fit."""
    if syntax not in _ENCODED_AGAIN:
        return None
    try:
        value = encapsulate([_frame(words, pixels, syntax)])
        again = _decompress(value, pixels, syntax)
    except (RuntimeError, ValueError, UnreadableInstance):
        return None
    return value if np.array_equal(again, words) else None


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
    """Tell which words say "no measurement"; padding is compared as whole words, as scanners write it."""
    if pixels.padding is None:
        return np.zeros(words.shape, dtype=bool)
    whole = words.view(np.int16) if pixels.signed else words
    low, high = pixels.padding
    return np.asarray((whole >= low) & (whole <= high))


def stored_values(words: WordArray, pixels: PixelFormat) -> NDArray[np.int16] | WordArray:
    """Return the integers in the low bits_stored bits, sign extended where signed; the words themselves when all 16 bits are used."""
    whole: NDArray[np.int16] | WordArray = words.view(np.int16) if pixels.signed else words
    unused = WORD_BITS - pixels.bits_stored
    if not unused:
        return whole
    return np.right_shift(np.left_shift(whole, unused), unused)


def unused_bits_are_empty(words: WordArray, pixels: PixelFormat) -> bool:
    """Tell whether the bits above bits_stored hold nothing: zeros or the sign, or those of one padding value."""
    if pixels.bits_stored == WORD_BITS:
        return True
    low = stored_values(words, pixels).view(np.uint16)
    zeros = words & np.uint16((1 << pixels.bits_stored) - 1)
    used = (words != low) & (words != zeros)
    if not used.any():
        return True
    whole = words[used]
    return bool(
        padding_mask(words, pixels)[used].all() and whole.min() == whole.max()
    )  # one value draws no picture


def put(words: WordArray, value: int, where: NDArray[np.bool_], pixels: PixelFormat) -> WordArray:
    """Return words with a stored value at some places, its unused bits filled like the image's own (with the sign, or with zeros)."""
    sign_bit = np.uint16(1 << (pixels.bits_stored - 1))
    bits = value & ((1 << pixels.bits_stored) - 1)
    above = 0xFFFF & ~((1 << pixels.bits_stored) - 1)
    unsigned_habit = bool(((words & sign_bit) != 0).any()) and not bool(
        (words[(words & sign_bit) != 0] & np.uint16(above)).any()
    )
    if pixels.signed and value < 0 and not (above and unsigned_habit):
        bits |= above
    edited = words.copy()
    edited[where] = bits
    return edited


def check_pixels(words: WordArray, pixels: PixelFormat, highest_padding_hu: float) -> None:
    """Refuse pixels that could carry another image, or whose padding hides tissue.

    Raises:
        UnsupportedObject: unused bits hold something, or padding voxels would be tissue.
    """
    if not unused_bits_are_empty(words, pixels):
        raise UnsupportedObject(
            "unused bits of the pixel data hold something, which could be another picture of the face"
        )
    if pixels.padding is not None:
        whole = words.view(np.int16) if pixels.signed else words
        hu = whole[padding_mask(words, pixels)] * pixels.slope + pixels.intercept
        if ((hu > highest_padding_hu) & (hu < BRIGHTEST_HU)).any():
            raise UnsupportedObject(
                f"voxels marked as padding are brighter than {highest_padding_hu:.0f} HU, so they could hide tissue"
            )
