"""Encode JPEG Lossless with GDCM, in memory.

It is the most common compressed syntax of hospitals, and pydicom cannot write it.
"""

import gdcm
from pydicom.uid import UID, JPEGLossless, JPEGLosslessSV1

from ctdeface_worker.imaging.domain import PixelFormat

SYNTAXES = {
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
}


def encode_frame(words: bytes, pixels: PixelFormat, syntax: str) -> bytes:
    """Encode the little-endian words of one image.

    Raises:
        RuntimeError: GDCM cannot encode it.
    """
    value = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    value.SetByteStringValue(words)
    owner = gdcm.ImageWriter()
    image = owner.GetImage()  # GDCM frees an image that Python owns a second time
    image.SetNumberOfDimensions(2)
    image.SetDimensions((pixels.columns, pixels.rows, 1))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, 16, pixels.bits_stored, pixels.bits_stored - 1, int(pixels.signed))
    )
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    image.SetDataElement(value)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(SYNTAXES[UID(syntax)]))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError("GDCM could not encode JPEG Lossless")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    if fragments is None or fragments.GetNumberOfFragments() != 1:
        raise RuntimeError("GDCM did not write exactly one JPEG Lossless frame")
    frame: str = fragments.GetFragment(0).GetByteValue().GetBuffer()
    return frame.encode("utf-8", errors="surrogateescape")
