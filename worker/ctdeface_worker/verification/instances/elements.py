"""Parse a DICOM file into elements and their offsets.

It uses pydicom's parser and shares no code with the writer.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filereader import data_element_generator
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ctdeface_shared.errors import UnreadableInstance

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    struct.error,
    zlib.error,
    InvalidDicomError,
)
"""Errors that pydicom raises for damaged files."""
TRANSFER_SYNTAX = 0x00020010

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_BYTES = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_PREAMBLE = 128
_MOST_INFLATED_BYTES = 1 << 30
_LARGEST_VALUE_READ = 1024
"""Larger values are skipped while parsing; only their offsets matter."""


class Encoding(NamedTuple):
    """Encoding of elements.

    Attributes:
        implicit: value representations are not written.
        little: least significant byte first.
    """

    implicit: bool
    little: bool

    @property
    def order(self) -> Literal["little", "big"]:
        """Byte order under its Python name."""
        return "little" if self.little else "big"


_META = Encoding(implicit=False, little=True)
_UNKNOWN = Encoding(implicit=True, little=True)
"""Encoding of sequences of unknown value representation (DICOM PS3.5 section 6.2.2)."""


class ParsedElement(NamedTuple):
    """One element and its place in the file.

    Attributes:
        tag: group and element number in one integer.
        vr: value representation, two letters; empty if the file does not contain it.
        start: offset of the tag.
        value: offset of the value.
        end: offset after the element, its delimiter included.
        delimited: it ends with a delimiter instead of having a length.
        encoding: its encoding.
    """

    tag: int
    vr: str
    start: int
    value: int
    end: int
    delimited: bool
    encoding: Encoding

    @property
    def name(self) -> str:
        """The tag in the notation of the standard."""
        return f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """A parsed file.

    Attributes:
        data: the file; for the deflated syntax, file meta information and inflated data set.
        syntax: (0002,0010).
        elements: of file meta information and data set in the order of the file, without nested
            ones.
        tail: offset after the last element.
    """

    data: bytes
    syntax: str
    elements: tuple[ParsedElement, ...]
    tail: int

    def top(self, tag: int) -> ParsedElement | None:
        """Return an element that is not nested."""
        return next((element for element in self.elements if element.tag == tag), None)

    def number(self, tag: int) -> int:
        """Return an unsigned integer of the header (US, UL).

        Raises:
            UnreadableInstance: it is missing.
        """
        element = self.top(tag)
        if element is None or element.end == element.value:
            raise UnreadableInstance(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing")
        return int.from_bytes(self.data[element.value : element.end], element.encoding.order)

    def value(self, element: ParsedElement) -> bytes:
        """Return the value of an element."""
        return self.data[element.value : element.end]


def parse(path: Path) -> ParsedFile:
    """Parse a file, which must have a preamble.

    Nothing about the file is guessed.

    Raises:
        UnreadableInstance: it is missing, damaged or truncated.
    """
    try:
        return _parse(path.read_bytes())
    except DAMAGE as error:
        raise UnreadableInstance(f"the file cannot be read: {error}") from error


def items(data: bytes, element: ParsedElement) -> list[list[ParsedElement]] | None:
    """Return the elements of each item, None without a sequence.

    Values of unknown representation are parsed as well, because many archives write private
    sequences in this way.

    Raises:
        UnreadableInstance: a sequence is damaged.
    """
    is_sequence = element.vr == "SQ"
    if not is_sequence and (
        element.vr not in {"", "UN"} or data[element.value : element.value + 4] not in _ITEM_BYTES
    ):
        return None
    for encoding in (element.encoding, _UNKNOWN) if is_sequence else (_UNKNOWN, element.encoding):
        try:
            return list(_items(data, element, encoding))
        except (UnreadableInstance, *DAMAGE):
            continue
    if is_sequence:
        raise UnreadableInstance(f"the sequence {element.name} is damaged")
    return None


def _parse(content: bytes) -> ParsedFile:
    start = _PREAMBLE + 4
    if content[_PREAMBLE:start] != b"DICM":
        raise UnreadableInstance("the prefix DICM is missing after the preamble")
    meta, body = _data_set(content, start, len(content), _META, only_group=0x0002)
    syntax = next(
        (
            content[e.value : e.end].rstrip(b"\0 ").decode("latin-1")
            for e in meta
            if e.tag == TRANSFER_SYNTAX
        ),
        "",
    )
    if not syntax:
        raise UnreadableInstance("the transfer syntax is missing in the file meta information")
    data = (
        content[:body] + _inflate(content[body:])
        if syntax == DeflatedExplicitVRLittleEndian
        else content
    )
    encoding = Encoding(
        implicit=syntax == ImplicitVRLittleEndian, little=syntax != ExplicitVRBigEndian
    )
    elements, tail = _data_set(data, body, len(data), encoding)
    return ParsedFile(data=data, syntax=syntax, elements=(*meta, *elements), tail=tail)


def _inflate(deflated: bytes) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    data = engine.decompress(deflated, _MOST_INFLATED_BYTES)
    if not engine.eof or engine.unused_data.strip(b"\0"):
        raise UnreadableInstance("the deflated data set does not end where the file ends")
    return data


def _data_set(
    data: bytes, start: int, end: int, encoding: Encoding, only_group: int | None = None
) -> tuple[list[ParsedElement], int]:
    """Return the elements from an offset, and the end offset.

    The caller decides whether they end too early.
    """
    stream = BytesIO(data)
    stream.seek(start)
    walk = data_element_generator(
        stream, encoding.implicit, encoding.little, defer_size=_LARGEST_VALUE_READ
    )
    found: dict[int, ParsedElement] = {}
    at = start
    while at < end and (
        only_group is None or int.from_bytes(data[at : at + 2], encoding.order) == only_group
    ):
        raw = next(walk, None)
        tag = 0 if raw is None else int(raw.tag)
        if raw is None or not tag:
            break
        value, length = (
            (raw.value_tell, raw.length)
            if isinstance(raw, RawDataElement)
            else (raw.file_tell or 0, _UNDEFINED)
        )
        element = ParsedElement(
            tag, str(raw.VR or ""), at, value, stream.tell(), length == _UNDEFINED, encoding
        )
        if element.end > end or (length != _UNDEFINED and value + length != element.end):
            raise UnreadableInstance(f"{element.name} is truncated")
        if tag in found:
            raise UnreadableInstance(f"{element.name} occurs twice")
        found[tag] = element
        at = element.end
    return list(found.values()), at


def _items(
    data: bytes, sequence: ParsedElement, encoding: Encoding
) -> Iterator[list[ParsedElement]]:
    at = sequence.value
    while at < sequence.end:
        tag, length = _item_header(data, at, encoding)
        if tag == _SEQUENCE_END and sequence.delimited and at + 8 == sequence.end:
            return
        end = sequence.end if length == _UNDEFINED else at + 8 + length
        elements, reached = _data_set(data, at + 8, end, encoding)
        whole = (
            reached == end
            if length != _UNDEFINED
            else _item_header(data, reached, encoding) == (_ITEM_END, 0)
        )
        if tag != _ITEM or end > sequence.end or not whole:
            raise UnreadableInstance(f"an item of {sequence.name} is damaged")
        yield elements
        at = reached if length != _UNDEFINED else reached + 8
    if sequence.delimited:
        raise UnreadableInstance(f"the delimiter of {sequence.name} is missing")


def _item_header(data: bytes, at: int, encoding: Encoding) -> tuple[int, int]:
    group, number, length = struct.unpack_from("<HHL" if encoding.little else ">HHL", data, at)
    return group << 16 | number, length
