"""Where every element of a DICOM file lies, to the byte: what edits in place are made with.

pydicom gives values, but not the place of a nested value in the file. This parser is strict: a
    length that does not fit, an unknown
value representation or a doubled element makes the file unreadable rather than guessed at (DICOM
PS3.5 section 7, PS3.10 section 7).
"""

import struct
import zlib
from dataclasses import dataclass

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.dicom.elements import Element, Walk

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
"""Suffixes of files that are expected to be DICOM, in lower case."""
PREAMBLE = 128
PIXEL_DATA = 0x7FE00010
TRANSFER_SYNTAX = 0x00020010
_MOST_INFLATED_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A file taken apart.

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
        """The data set does not name value representations."""
        return self.transfer_syntax_uid == ImplicitVRLittleEndian

    @property
    def deflated(self) -> bool:
        """The data set is deflated in the file."""
        return self.transfer_syntax_uid == DeflatedExplicitVRLittleEndian

    @property
    def pixel_data(self) -> Element | None:
        """The top-level (7FE0,0010)."""
        return self.top(PIXEL_DATA)

    def top(self, tag: int) -> Element | None:
        """Return a top-level element."""
        return next(
            (element for element in self.elements if element.tag == tag and not element.path), None
        )


def parse(content: bytes) -> Layout:
    """Take a DICOM file apart.

    Raises:
        UnreadableInstance: it is truncated or damaged.
    """
    try:
        return _parse(content)
    except (struct.error, zlib.error) as error:
        raise UnreadableInstance(f"truncated or damaged: {error}") from error


def looks_like_bare_data_set(content: bytes) -> bool:
    """Tell whether bytes without preamble start like a data set: group 0002 or 0008, and two elements that parse."""
    for big, implicit in ((False, False), (False, True), (True, False)):
        walk = Walk(content, big=big, implicit=implicit)
        try:
            group, _ = walk.tag_at(0)
            if group in {0x0002, 0x0008}:
                walk.data_set(0, len(content))
        except (struct.error, UnreadableInstance):
            pass  # not this encoding, or a damaged one: what was understood until there counts
        if len(walk.found) > 1:
            return True
    return False


def _parse(content: bytes) -> Layout:
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        raise UnreadableInstance("no DICM prefix behind the preamble")
    meta = Walk(content, big=False, implicit=False)
    body = meta.data_set(PREAMBLE + 4, len(content), only_group=0x0002)
    named = (
        content[e.value : e.end].rstrip(b"\0 ").decode("latin-1")
        for e in meta.found
        if e.tag == TRANSFER_SYNTAX
    )
    syntax = next(named, "")
    if not syntax:
        raise UnreadableInstance("the file meta information names no transfer syntax")
    data = (
        content[:body] + _inflate(content[body:])
        if syntax == DeflatedExplicitVRLittleEndian
        else content
    )
    walk = Walk(data, big=syntax == ExplicitVRBigEndian, implicit=syntax == ImplicitVRLittleEndian)
    if walk.data_set(body, len(data)) != len(data):
        raise UnreadableInstance("there are bytes behind the end of the data set")
    top = [element.tag for element in walk.found if not element.path]
    if len(set(top)) != len(top):
        raise UnreadableInstance("an element occurs twice in the data set")
    return Layout(
        data=data, transfer_syntax_uid=syntax, body=body, elements=(*meta.found, *walk.found)
    )


def _inflate(data: bytes) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = engine.decompress(data, _MOST_INFLATED_BYTES)
    if not engine.eof:
        raise UnreadableInstance("the deflated data set is truncated or too large")
    if engine.unused_data.strip(b"\0"):
        raise UnreadableInstance("there are bytes behind the deflated data set")
    return inflated
