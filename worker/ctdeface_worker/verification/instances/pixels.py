"""Compare the stored pixel words of two instances."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_fragments, generate_frames
from pydicom.pixels.decoders.base import get_decoder
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

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.verification.instances.coded_size import has_needed_size
from ctdeface_worker.verification.instances.elements import DAMAGE, ParsedElement, ParsedFile
from ctdeface_worker.verification.instances.frames import hidden_bytes

NATIVE = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)
REBUILT = frozenset({JPEG2000, JPEG2000Lossless})
"""Syntaxes of which every frame is encoded again: each code-block may hold unused bytes."""
PIXEL_DATA = 0x7FE00010

_LOSSLESS_JPEG = frozenset({JPEGLossless, JPEGLosslessSV1})

_DECODERS = {
    RLELossless: "pydicom",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
}
"""Decoders per syntax; GDCM decodes the others.

GDCM hides the unused bits of RLE, and some damaged JPEG-LS frames make it abort the process.
"""

_ROWS, _COLUMNS, _BITS_ALLOCATED, _BITS_STORED, _SIGNED = (
    0x00280010,
    0x00280011,
    0x00280100,
    0x00280101,
    0x00280103,
)

WordArray: TypeAlias = NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPixels:
    """The pixels that must be filled in one slice.

    Attributes:
        face: pixels to be removed, (row, column).
        fill_stored: the stored value of air, sign included.
        padding: lowest and highest whole word that means "no measurement"; such pixels must not
            change. None if the instance has no padding.
    """

    face: BoolArray
    fill_stored: int
    padding: tuple[int, int] | None


def pixel_problems(
    before: ParsedFile, after: ParsedFile, expected: ExpectedPixels
) -> Iterator[str]:
    """Yield the problems with the pixels of the output.

    Args:
        before: the input.
        after: the output.
        expected: the pixels that must be filled.

    Raises:
        UnreadableInstance: pixel data are missing or cannot be decoded.
    """
    face, padding = expected.face, expected.padding
    hidden = "" if after.syntax in NATIVE else hidden_bytes(_raw(after), after.syntax, face.size)
    same_bytes = _raw(before) == _raw(after)
    is_copy = not face.any() and same_bytes and before.syntax == after.syntax
    if not hidden and is_copy and not _needs_all_its_bytes(after):
        hidden = "the compressed image holds bytes that decoding does not need"
    if hidden:
        yield hidden
    if hidden or is_copy:
        return
    was, now = _words(before), _words(after)
    if was.shape != now.shape or was.shape != face.shape:
        yield (
            f"the image has {was.shape} pixels before and {now.shape} after, "
            f"the face mask has {face.shape}"
        )
        return
    signed, bits = bool(before.number(_SIGNED)), before.number(_BITS_STORED)
    filled = face if padding is None else face & ~_is_padding(was, padding, signed=signed)
    outside = int(np.count_nonzero((was != now) & ~filled))
    if outside:
        yield f"{outside} voxels differ that are outside the face mask or are padding"
    inside, fill = now[filled], expected.fill_stored
    # unused bits must repeat the sign or be zero, so that they hide no picture
    allowed = (fill & 0xFFFF, fill & ((1 << bits) - 1))
    not_filled = int(np.count_nonzero(~np.isin(inside, allowed)))
    if not_filled:
        yield f"{not_filled} of {inside.size} face voxels do not hold the fill value {fill}"
    if not same_bytes and not filled.any() and before.syntax not in REBUILT:
        yield "the pixel data differ although no voxel had to change"


def _is_padding(words: WordArray, padding: tuple[int, int], *, signed: bool) -> BoolArray:
    whole = words.view(np.int16) if signed else words
    return np.asarray((whole >= padding[0]) & (whole <= padding[1]))


def _element(file: ParsedFile) -> ParsedElement:
    element = file.top(PIXEL_DATA)
    if element is None:
        raise UnreadableInstance("the pixel data are missing")
    return element


def _raw(file: ParsedFile) -> bytes:
    return file.value(_element(file))


def _words(file: ParsedFile) -> WordArray:
    """Return the 16-bit words (row, column) in native byte order."""
    element = _element(file)
    shape = (file.number(_ROWS), file.number(_COLUMNS))
    if file.number(_BITS_ALLOCATED) != 16:
        raise UnreadableInstance("the pixels are not stored in words of 16 bits")
    if file.syntax not in NATIVE:
        return _decompressed(file, shape)
    size, needed = element.end - element.value, shape[0] * shape[1] * 2
    if size != needed:
        raise UnreadableInstance(
            f"the pixel data hold {size} bytes; {shape[0]} x {shape[1]} pixels need {needed}"
        )
    order = "<u2" if element.encoding.little else ">u2"
    words = np.frombuffer(file.data, dtype=order, count=shape[0] * shape[1], offset=element.value)
    return words.reshape(shape).astype(np.uint16, copy=False)


def _needs_all_its_bytes(file: ParsedFile) -> bool:
    """Return whether the coded data end with the last pixel.

    The decoders of the other syntaxes refuse data that go on.
    """
    if file.syntax not in _LOSSLESS_JPEG:
        return True
    frame = b"".join(list(generate_fragments(_raw(file)))[1:])
    return has_needed_size(frame, _words(file))


def _decompressed(file: ParsedFile, shape: tuple[int, int]) -> WordArray:
    """Decode the only frame."""
    try:
        frames = list(generate_frames(_raw(file), number_of_frames=1))
        decoded, _ = get_decoder(UID(file.syntax)).as_array(
            encapsulate(frames),
            raw=True,
            decoding_plugin=_DECODERS.get(UID(file.syntax), "gdcm"),
            **_image_keywords(file, shape),
        )
    except DAMAGE as error:
        raise UnreadableInstance(f"the compressed pixel data cannot be decoded: {error}") from error
    if decoded.shape != shape or decoded.dtype.itemsize != 2:
        raise UnreadableInstance(
            f"the compressed pixel data hold {decoded.shape} pixels; the header requires {shape}"
        )
    return np.ascontiguousarray(decoded).view(np.uint16)


def _image_keywords(file: ParsedFile, shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "rows": shape[0],
        "columns": shape[1],
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": file.number(_BITS_STORED),
        "pixel_representation": file.number(_SIGNED),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,
    }
