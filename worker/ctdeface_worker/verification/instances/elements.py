"""Reads a DICOM file into elements and their places through pydicom's parser; shares no code with what wrote the file."""

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
"""What reading a damaged file with pydicom can raise."""
TRANSFER_SYNTAX = 0x00020010

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_BYTES = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_PREAMBLE = 128
_MOST_INFLATED_BYTES = 1 << 30
_LARGEST_VALUE_READ = 1024
"""Larger values are skipped while parsing: only their place matters."""


class Encoding(NamedTuple):
    """How elements are written.

    Attributes:
        implicit: value representations are not named.
        little: least significant byte first.
    """

    implicit: bool
    little: bool

    @property
    def order(self) -> Literal["little", "big"]:
        """Byte order as Python names it."""
        return "little" if self.little else "big"


_META = Encoding(implicit=False, little=True)
_UNKNOWN = Encoding(implicit=True, little=True)
"""Sequences of unknown value representation are implicit little endian (DICOM PS3.5 section 6.2.2)."""


class Element(NamedTuple):
    """One element and where it lies.

    Attributes:
        tag: group and element number in one integer.
        vr: two letters, empty where the file does not say.
        start: offset of the tag.
        value: offset of the value.
        end: offset behind the element, its delimiter included.
        delimited: a delimiter instead of a length ends it.
        encoding: how it is written.
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
        """The tag as the standard writes it."""
        return f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """A file as read.

    Attributes:
        data: the file; for the deflated syntax: file meta information, then the inflated data set.
        syntax: (0002,0010).
        elements: of the file meta information and of the data set, in the order of the file, nested
            ones not included.
        tail: offset behind the last element.
    """

    data: bytes
    syntax: str
    elements: tuple[Element, ...]
    tail: int

    def top(self, tag: int) -> Element | None:
        """Return an element that is not nested."""
        return next((element for element in self.elements if element.tag == tag), None)

    def number(self, tag: int) -> int:
        """Return an unsigned integer of the header (US, UL).

        Raises:
            UnreadableInstance: there is none.
        """
        element = self.top(tag)
        if element is None or element.end == element.value:
            raise UnreadableInstance(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing")
        return int.from_bytes(self.data[element.value : element.end], element.encoding.order)

    def value(self, element: Element) -> bytes:
        """Return an element's bytes behind tag, value representation and length."""
        return self.data[element.value : element.end]


def read(path: Path) -> DicomFile:
    """Read a file; it must have a preamble, and nothing about it is guessed.

    Raises:
        UnreadableInstance: it is missing, damaged or truncated.
    """
    try:
        return _parse(path.read_bytes())
    except DAMAGE as error:
        raise UnreadableInstance(f"it cannot be read: {error}") from error


def items(data: bytes, element: Element) -> list[list[Element]] | None:
    """Return the elements of each item, or None where the value is no sequence.

    Values of unknown representation are looked into as well: many archives write private sequences
        so.

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


def _parse(content: bytes) -> DicomFile:
    start = _PREAMBLE + 4
    if content[_PREAMBLE:start] != b"DICM":
        raise UnreadableInstance("there is no DICM prefix behind the preamble")
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
        raise UnreadableInstance("the file meta information names no transfer syntax")
    data = (
        content[:body] + _inflate(content[body:])
        if syntax == DeflatedExplicitVRLittleEndian
        else content
    )
    encoding = Encoding(
        implicit=syntax == ImplicitVRLittleEndian, little=syntax != ExplicitVRBigEndian
    )
    elements, tail = _data_set(data, body, len(data), encoding)
    return DicomFile(data=data, syntax=syntax, elements=(*meta, *elements), tail=tail)


def _inflate(deflated: bytes) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    data = engine.decompress(deflated, _MOST_INFLATED_BYTES)
    if not engine.eof or engine.unused_data.strip(b"\0"):
        raise UnreadableInstance("the deflated data set does not end where the file ends")
    return data


def _data_set(
    data: bytes, start: int, end: int, encoding: Encoding, only_group: int | None = None
) -> tuple[list[Element], int]:
    """Return the elements from start on and the offset behind the last; what ends them early is the caller's to judge."""
    stream = BytesIO(data)
    stream.seek(start)
    walk = data_element_generator(
        stream, encoding.implicit, encoding.little, defer_size=_LARGEST_VALUE_READ
    )
    found: dict[int, Element] = {}
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
        element = Element(
            tag, str(raw.VR or ""), at, value, stream.tell(), length == _UNDEFINED, encoding
        )
        if element.end > end or (length != _UNDEFINED and value + length != element.end):
            raise UnreadableInstance(f"{element.name} is truncated")
        if tag in found:
            raise UnreadableInstance(f"{element.name} occurs twice")
        found[tag] = element
        at = element.end
    return list(found.values()), at


def _items(data: bytes, sequence: Element, encoding: Encoding) -> Iterator[list[Element]]:
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
        raise UnreadableInstance(f"{sequence.name} has no end")


def _item_header(data: bytes, at: int, encoding: Encoding) -> tuple[int, int]:
    group, number, length = struct.unpack_from("<HHL" if encoding.little else ">HHL", data, at)
    return group << 16 | number, length
