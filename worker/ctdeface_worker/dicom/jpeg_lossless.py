"""Encodes JPEG Lossless, which hospitals send most and pydicom does not write, with GDCM in memory."""

import gdcm
from pydicom.uid import UID, JPEGLossless, JPEGLosslessSV1

from ctdeface_worker.imaging.domain import PixelFormat

SYNTAXES = {
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
}


def encode_frame(words: bytes, pixels: PixelFormat, syntax: str) -> bytes:
    """Compress the little-endian words of one image.

    Raises:
        RuntimeError: GDCM refuses.
    """
    value = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    value.SetByteStringValue(words)
    owner = gdcm.ImageWriter()
    image = owner.GetImage()  # an image that Python owned would be freed twice
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
        raise RuntimeError("GDCM wrote no single JPEG Lossless frame")
    frame: str = fragments.GetFragment(0).GetByteValue().GetBuffer()
    return frame.encode("utf-8", errors="surrogateescape")
