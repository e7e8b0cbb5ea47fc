"""Replace byte ranges and correct the enclosing lengths."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias

import pydicom
from pydicom.charset import default_encoding
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from ctdeface_worker.dicom.elements import UNDEFINED, Element
from ctdeface_worker.dicom.layout import Layout

Bytes: TypeAlias = bytes | memoryview
CharacterSets: TypeAlias = str | list[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Replacement of a byte range.

    Attributes:
        start: offset of the first byte.
        end: offset behind the last byte; equal to start for an insertion.
        data: the new bytes.
        lengths: offsets of the 32-bit lengths that count these bytes.
        group: tag group of the top-level element around these bytes.
    """

    start: int
    end: int
    data: Bytes
    lengths: tuple[int, ...] = ()
    group: int = 0

    @property
    def growth(self) -> int:
        """Number of bytes by which the file grows."""
        return len(self.data) - (self.end - self.start)


def replace_value(element: Element, data: Bytes) -> Patch:
    """Replace a value by one of the same length."""
    return Patch(start=element.value, end=element.value + len(data), data=data)


def replace_element(element: Element, data: Bytes) -> Patch:
    """Replace a whole element; empty data remove it."""
    return Patch(
        start=element.start,
        end=element.end,
        data=data,
        lengths=element.lengths,
        group=_top_group(element),
    )


def insert_element(layout: Layout, tag: int, data: bytes) -> Patch:
    """Insert a top-level element in the order of tags."""
    behind = (e for e in layout.elements if not e.path and e.start >= layout.body and e.tag > tag)
    at = next(behind, None)
    start = at.start if at else len(layout.data)
    return Patch(start=start, end=start, data=data, group=tag >> 16)


def append_item(layout: Layout, sequence: Element, item: bytes) -> Patch:
    """Append an encoded item to a top-level sequence."""
    delimited = struct.unpack_from("<L", layout.data, sequence.value - 4)[0] == UNDEFINED
    at = sequence.end - 8 if delimited else sequence.end
    own = () if delimited else (sequence.value - 4,)
    return Patch(
        start=at, end=at, data=item, lengths=(*sequence.lengths, *own), group=sequence.tag >> 16
    )


def apply(layout: Layout, patches: Iterable[Patch]) -> Iterator[Bytes]:
    """Yield the pieces of the patched data.

    Patches inside a replaced range are dropped.
    """
    data = memoryview(layout.data)
    at = 0
    # A dropped patch changes no length.
    outer = list(_outside_each_other(patches))
    for patch in _outside_each_other([*outer, *_corrected_lengths(layout, outer)]):
        yield data[at : patch.start]
        yield patch.data
        at = patch.end
    yield data[at:]


def _outside_each_other(patches: Iterable[Patch]) -> Iterator[Patch]:
    """Yield the patches that are not inside of others, in the order of their offsets."""
    at = 0
    for patch in sorted(patches, key=lambda patch: (patch.start, patch.end)):
        if patch.start >= at:
            yield patch
            at = patch.end


def encoded(
    layout: Layout,
    elements: pydicom.Dataset,
    *,
    meta: bool = False,
    characters: CharacterSets = None,
) -> bytes:
    """Encode elements in the encoding of the file.

    `characters` is its SpecificCharacterSet (0008,0005).
    """
    stream = DicomIO(BytesIO())
    stream.is_implicit_VR = layout.implicit and not meta
    stream.is_little_endian = layout.little_endian or meta
    write_dataset(stream, elements, characters or default_encoding)
    stream.seek(0)
    return bytes(stream.read())


def fragmented_element(value: bytes) -> bytes:
    """Encode encapsulated pixel data, always explicit little endian."""
    return (
        struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED)
        + value
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    )


def native_element(value: bytes) -> bytes:
    """Encode native pixel data in explicit little endian."""
    return struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, len(value)) + value


def to_explicit_little_endian(layout: Layout) -> Patch | None:
    """Change the transfer syntax to Explicit VR Little Endian."""
    element = layout.top(0x00020010)
    if element is None:
        return None
    meta = pydicom.Dataset()
    meta.add_new(0x00020010, "UI", ExplicitVRLittleEndian)
    return replace_element(element, encoded(layout, meta, meta=True))


def _top_group(element: Element) -> int:
    return (element.path[0][0] if element.path else element.tag) >> 16


def _corrected_lengths(layout: Layout, patches: Iterable[Patch]) -> Iterator[Patch]:
    """Yield the corrected lengths around patched bytes."""
    growth: dict[int, int] = defaultdict(int)
    for patch in patches:
        if not patch.growth:
            continue
        for offset in patch.lengths:
            growth[offset] += patch.growth
        group_length = layout.top(patch.group << 16)
        if group_length is not None:
            growth[group_length.value] += patch.growth
    for offset, by in growth.items():
        kind = "<L" if layout.little_endian or offset < layout.body else ">L"
        length = struct.unpack_from(kind, layout.data, offset)[0] + by
        yield Patch(start=offset, end=offset + 4, data=struct.pack(kind, length))
