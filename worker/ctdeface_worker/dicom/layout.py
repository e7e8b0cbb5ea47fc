"""Parse a DICOM file into elements with byte offsets.

pydicom does not report the offset of a nested value. This parser is strict: a wrong length, an
unknown value representation or a repeated element makes the file unreadable (DICOM PS3.5 section
7, PS3.10 section 7).
"""

import struct
import zlib
from collections import Counter
from dataclasses import dataclass

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.dicom.elements import Element, Walk, tag_name

PREAMBLE = 128
PIXEL_DATA = 0x7FE00010
TRANSFER_SYNTAX = 0x00020010
_MOST_INFLATED_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Elements of a file with their byte offsets.

    Attributes:
        data: the file; for the deflated syntax: file meta information, then the inflated data set.
        transfer_syntax_uid: (0002,0010).
        body: offset of the data set, behind the file meta information.
        elements: all elements but items and delimiters, nested ones included, in the order of the
            file.
    """

    data: bytes
    transfer_syntax_uid: str
    body: int
    elements: tuple[Element, ...]

    @property
    def little_endian(self) -> bool:
        """Byte order of the data set."""
        return self.transfer_syntax_uid != ExplicitVRBigEndian

    @property
    def implicit(self) -> bool:
        """Whether the data set omits value representations."""
        return self.transfer_syntax_uid == ImplicitVRLittleEndian

    @property
    def deflated(self) -> bool:
        """Whether the data set is deflated in the file."""
        return self.transfer_syntax_uid == DeflatedExplicitVRLittleEndian

    @property
    def pixel_data(self) -> Element | None:
        """Top-level PixelData (7FE0,0010), None when absent."""
        return self.top(PIXEL_DATA)

    def top(self, tag: int) -> Element | None:
        """Return a top-level element, None when absent."""
        return next(
            (element for element in self.elements if element.tag == tag and not element.path), None
        )


def parse(content: bytes) -> Layout:
    """Parse a DICOM file.

    Raises:
        UnreadableInstance: it is truncated or damaged.
    """
    try:
        return _parse(content)
    except (struct.error, zlib.error) as error:
        raise UnreadableInstance(
            f"the file is truncated or damaged ({error}); send it again from its source"
        ) from error


def looks_like_bare_data_set(content: bytes) -> bool:
    """Return whether bytes without preamble look like DICOM.

    They do if group 0002 or 0008 comes first and two elements can be parsed.
    """
    for big, implicit in ((False, False), (False, True), (True, False)):
        walk = Walk(content, big=big, implicit=implicit)
        try:
            group, _ = walk.tag_at(0)
            if group in {0x0002, 0x0008}:
                walk.data_set(0, len(content))
        except (struct.error, UnreadableInstance):
            pass  # another encoding, or damaged; the elements parsed so far count
        if len(walk.found) > 1:
            return True
    return False


def _parse(content: bytes) -> Layout:
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        raise UnreadableInstance("the DICM prefix behind the preamble is missing")
    meta = Walk(content, big=False, implicit=False)
    body = meta.data_set(PREAMBLE + 4, len(content), only_group=0x0002)
    values = (content[e.value : e.end] for e in meta.found if e.tag == TRANSFER_SYNTAX)
    syntax = next(values, b"").rstrip(b"\0 ").decode("latin-1")
    if not syntax:
        raise UnreadableInstance("the file meta information does not name a transfer syntax")
    data = content
    if syntax == DeflatedExplicitVRLittleEndian:
        data = content[:body] + _inflate(content[body:])
    walk = Walk(data, big=syntax == ExplicitVRBigEndian, implicit=syntax == ImplicitVRLittleEndian)
    if walk.data_set(body, len(data)) != len(data):
        raise UnreadableInstance(
            "bytes follow behind the end of the data set; a file must end with its data set"
        )
    top = Counter(element.tag for element in walk.found if not element.path)
    repeated = [tag for tag, count in top.items() if count > 1]
    if repeated:
        raise UnreadableInstance(
            f"{tag_name(repeated[0])} occurs twice in the data set; each element must be unique"
        )
    return Layout(
        data=data, transfer_syntax_uid=syntax, body=body, elements=(*meta.found, *walk.found)
    )


def _inflate(data: bytes) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = engine.decompress(data, _MOST_INFLATED_BYTES)
    if not engine.eof:
        raise UnreadableInstance(
            f"the deflated data set is truncated, or larger than {_MOST_INFLATED_BYTES >> 30} GiB"
        )
    if engine.unused_data.strip(b"\0"):
        raise UnreadableInstance("bytes follow behind the deflated data set")
    return inflated
