"""Parse a DICOM file into elements with byte offsets.

pydicom does not report the offset of a nested value. This parser is strict: a wrong length, an
unknown value representation or a repeated element makes the file unreadable (DICOM PS3.5 section
7, PS3.10 section 7).
"""

import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ctdeface_shared.errors import TooLarge, UnreadableInstance
from ctdeface_worker.dicom.elements import Element, Walk, tag_name

PREAMBLE = 128
PIXEL_DATA = 0x7FE00010
TRANSFER_SYNTAX = 0x00020010
_MOST_INFLATED_BYTES = 1 << 28
_USUAL_INFLATED_BYTES = 1 << 26
_LARGEST_RATIO = 100
"""Slices inflate to two or four times their size, or to thirty if they are mostly empty."""
_BLOCK = 1 << 20
_SYNTAX = re.compile("[0-9.]{1,64}")


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
        TooLarge: its data set inflates to too many bytes, or it has too many elements.
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
        except (struct.error, UnreadableInstance, TooLarge):
            pass  # another encoding, or damaged; the elements parsed so far count
        if len(walk.found) > 1:
            return True
    return False


def _parse(content: bytes) -> Layout:
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        raise UnreadableInstance("the DICM prefix behind the preamble is missing")
    meta = Walk(content, big=False, implicit=False)
    body = meta.data_set(PREAMBLE + 4, len(content), only_group=0x0002)
    syntax = _transfer_syntax(content, meta.found)
    data = content
    if syntax == DeflatedExplicitVRLittleEndian:
        data = content[:body] + _inflate(content[body:])
    walk = Walk(data, big=syntax == ExplicitVRBigEndian, implicit=syntax == ImplicitVRLittleEndian)
    if walk.data_set(body, len(data)) != len(data):
        raise UnreadableInstance(
            "bytes follow behind the end of the data set; a file must end with its data set"
        )
    _require_unique(walk.found)
    return Layout(
        data=data, transfer_syntax_uid=syntax, body=body, elements=(*meta.found, *walk.found)
    )


def _transfer_syntax(content: bytes, meta: Sequence[Element]) -> str:
    """Return the transfer syntax, which both parsers must read alike."""
    _require_unique(meta)
    values = (content[e.value : e.end] for e in meta if e.tag == TRANSFER_SYNTAX)
    syntax = next(values, b"").rstrip(b"\0 ").decode("latin-1")
    if not _SYNTAX.fullmatch(syntax):
        raise UnreadableInstance("the file meta information does not name a transfer syntax")
    return syntax


def _require_unique(found: Iterable[Element]) -> None:
    top = Counter(element.tag for element in found if not element.path)
    repeated = [tag for tag, count in top.items() if count > 1]
    if repeated:
        raise UnreadableInstance(
            f"{tag_name(repeated[0])} occurs twice in the data set; each element must be unique"
        )


def _inflate(data: bytes) -> bytes:
    _require_small(data)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = engine.decompress(data)
    if not engine.eof:
        raise UnreadableInstance("the deflated data set is truncated")
    if engine.unused_data.strip(b"\0"):
        raise UnreadableInstance("bytes follow behind the deflated data set")
    return inflated


def _require_small(data: bytes) -> None:
    """Count the inflated bytes block by block, without keeping them.

    Raises:
        TooLarge: they are too many.
    """
    allowed = max(min(len(data) * _LARGEST_RATIO, _MOST_INFLATED_BYTES), _USUAL_INFLATED_BYTES)
    count = 0
    for block in _inflated_blocks(data):
        count += len(block)
        if count > allowed:
            raise TooLarge(
                f"a deflated data set of {len(data) / 1e6:.3g} MB inflates to more than "
                f"{allowed / 1e6:.3g} MB; at most {_LARGEST_RATIO} times its size and "
                f"{_MOST_INFLATED_BYTES >> 20} MiB are supported: send it in another transfer "
                "syntax, or remove it"
            )


def _inflated_blocks(data: bytes) -> Iterator[bytes]:
    engine, view = zlib.decompressobj(-zlib.MAX_WBITS), memoryview(data)
    for start in range(0, len(view), _BLOCK):
        left: bytes | memoryview = view[start : start + _BLOCK]
        while left and not engine.eof:
            yield engine.decompress(left, _BLOCK)
            left = engine.unconsumed_tail
