"""Locate all elements of a data set by byte offset.

The encodings are those of DICOM PS3.5 section 7.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

from ctdeface_shared.errors import TooLarge, UnreadableInstance

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Value representations with a 32-bit length behind two reserved bytes."""
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_DEEPEST = 32
_MOST_VISITS = 1_000_000
_SPARE_VISITS = 1000


class Element(NamedTuple):
    """One element and its byte offsets.

    Attributes:
        path: (tag, item number) of each enclosing sequence, from the outside in.
        tag: group and element number in one integer.
        vr: two letters; "UN" where neither file nor dictionary names it, "SQ" where such a value
            is a sequence.
        start: offset of the tag.
        value: offset of the value.
        end: offset behind the element (behind its delimiter, if it has one).
        fragmented: encapsulated pixel data: items with fragments instead of one value.
        lengths: offsets of the 32-bit lengths of enclosing sequences and items, which change with
            the size of this element.
    """

    path: tuple[tuple[int, int], ...]
    tag: int
    vr: str
    start: int
    value: int
    end: int
    fragmented: bool
    lengths: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return self.end - self.value

    @property
    def tag_name(self) -> str:
        """Its tag, such as "(7FE0,0010)"."""
        return tag_name(self.tag)

    @property
    def is_picture(self) -> bool:
        """Whether it is an overlay or the pixel data of an icon."""
        overlay = self.tag >> 16 & 0xFF01 == 0x6000 and self.tag & 0xFFFF == 0x3000
        return overlay or (self.tag >> 16 == 0x7FE0 and bool(self.path))

    @property
    def name(self) -> str:
        """Path for the report, such as "(0088,0200)[0].(7FE0,0010)"."""
        return ".".join(
            [*(f"{tag_name(tag)}[{item}]" for tag, item in self.path), tag_name(self.tag)]
        )


class Place(NamedTuple):
    """Position of a data set within its file.

    Attributes:
        path: (tag, item number) of each enclosing sequence.
        lengths: offsets of the 32-bit lengths that count its bytes.
    """

    path: tuple[tuple[int, int], ...] = ()
    lengths: tuple[int, ...] = ()

    def inside(self, tag: int, length_at: int, *, defined: bool) -> "Place":
        """Return the place inside a sequence element."""
        return Place(
            (*self.path, (tag, 0)), (*self.lengths, length_at) if defined else self.lengths
        )

    def item(self, number: int, length_at: int, *, defined: bool) -> "Place":
        """Return the place inside an item of this sequence."""
        return Place(
            (*self.path[:-1], (self.path[-1][0], number)),
            (*self.lengths, length_at) if defined else self.lengths,
        )


TOP = Place()


def tag_name(tag: int) -> str:
    """Format a tag, such as "(7FE0,0010)"."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


@lru_cache(maxsize=4096)
def known_vr(tag: int) -> str:
    """Return the VR from the data dictionary, else "UN"."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UL" if tag & 0xFFFF == 0 else "UN"


def is_public(tag: int) -> bool:
    """Return whether the standard defines the element.

    Private elements, group lengths, retired curves (50xx) and unknown elements are not public;
    private creators are.
    """
    group, number = tag >> 16, tag & 0xFFFF
    if group & 1:
        return 0x10 <= number <= 0xFF
    return number > 0 and group & 0xFF00 != 0x5000 and known_vr(tag) != "UN"


class Walk:
    """Parser of elements in one encoding."""

    def __init__(
        self, data: bytes, *, big: bool, implicit: bool, visits: Iterator[int] | None = None
    ) -> None:
        """Set byte order and form, implicit or explicit.

        Args:
            data: the file.
            big: byte order.
            implicit: form.
            visits: number of elements that may still be visited; None for what a file of this size
                needs. Values that are sequences in one encoding and not in another are visited
                again, at each level of nesting.
        """
        self.found: list[Element] = []
        self._visits = visits or iter(range(min(_SPARE_VISITS + len(data) // 2, _MOST_VISITS)))
        self._data = data
        self._big = big
        self._implicit = implicit
        order = ">" if big else "<"
        self._tag = struct.Struct(f"{order}HH")
        self._short = struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}L")

    def tag_at(self, at: int) -> tuple[int, int]:
        """Return the group and element number at an offset."""
        group, number = self._tag.unpack_from(self._data, at)
        return int(group), int(number)

    def data_set(
        self, at: int, end: int, place: Place = TOP, *, only_group: int | None = None
    ) -> int:
        """Collect the elements of a data set; return its end.

        If a delimiter ends the item, the offset is that of the delimiter.
        """
        while at < end:
            if self._is_zero(at, min(at + 8, end)) and self._is_zero(at, end):
                return end  # padding behind the last element
            group, number = self.tag_at(at)
            tag = group << 16 | number
            if tag == ITEM_END or (only_group is not None and group != only_group):
                return at
            at = self._element(tag, at, end, place)
        return at

    def _is_zero(self, start: int, end: int) -> bool:
        return not self._data[start:end].strip(b"\0")

    def _element(self, tag: int, start: int, end: int, place: Place) -> int:
        if next(self._visits, None) is None:
            raise TooLarge(
                f"the elements of a file are too many, or nested in ambiguous ways; at most "
                f"{_MOST_VISITS} are supported: remove the file, or export it again"
            )
        vr, value, length = self._header(tag, start)
        if length != UNDEFINED and value + length > end:
            raise UnreadableInstance(
                f"{tag_name(tag)} is truncated: it announces {length} bytes, {end - value} follow"
            )
        index = len(self.found)
        fragmented = length == UNDEFINED and vr in {"OB", "OW"} and not self._implicit
        stop = value + length if length != UNDEFINED else end
        self.found.append(
            Element(place.path, tag, vr, start, value, stop, fragmented, place.lengths)
        )
        if fragmented:
            stop = self._fragments(value, end)
        elif length == UNDEFINED or vr == "SQ":
            walk = self if vr == "SQ" else self._beside(big=False, implicit=True)
            stop = walk.items(
                value,
                stop,
                place.inside(tag, value - 4, defined=length != UNDEFINED),
                delimited=length == UNDEFINED,
            )
            if walk is not self:
                self.found.extend(walk.found)
        elif (
            vr == "UN"
            and length >= 8
            and self._hidden_items(value, stop, place.inside(tag, value - 4, defined=True))
        ):
            self.found[index] = self.found[index]._replace(vr="SQ")
        if stop != self.found[index].end:
            self.found[index] = self.found[index]._replace(end=stop)
        return stop

    def _header(self, tag: int, start: int) -> tuple[str, int, int]:
        """Return VR, offset and length of the value."""
        if self._implicit:
            return known_vr(tag), start + 8, int(self._long.unpack_from(self._data, start + 4)[0])
        vr = self._data[start + 4 : start + 6]
        if vr in LONG_VRS:
            length, value = int(self._long.unpack_from(self._data, start + 8)[0]), start + 12
        elif vr in _SHORT_VRS:
            length, value = int(self._short.unpack_from(self._data, start + 6)[0]), start + 8
        else:
            raise UnreadableInstance(f"{tag_name(tag)} has the unknown value representation {vr!r}")
        name = vr.decode("ascii")
        return name, value, length

    def items(self, at: int, end: int, place: Place, *, delimited: bool) -> int:
        """Collect the items of a sequence; return its end."""
        if len(place.path) > _DEEPEST:
            raise UnreadableInstance(
                f"sequences are nested {len(place.path)} deep; at most {_DEEPEST} is supported"
            )
        number = 0
        while at < end:
            tag, length = self._item_header(at)
            if tag == SEQUENCE_END and delimited and not length:
                return at + 8
            if tag != ITEM or (length != UNDEFINED and at + 8 + length > end):
                raise UnreadableInstance(
                    f"a sequence holds {tag_name(tag)} where an item of valid length must begin"
                )
            stop = end if length == UNDEFINED else at + 8 + length
            reached = self.data_set(
                at + 8, stop, place.item(number, at + 4, defined=length != UNDEFINED)
            )
            if length == UNDEFINED:
                self._expect(ITEM_END, reached)
                reached += 8
            at = reached
            number += 1
        if delimited:
            raise UnreadableInstance("a sequence has no delimiter at its end")
        return at

    def _fragments(self, at: int, end: int) -> int:
        while at < end:
            tag, length = self._item_header(at)
            at += 8
            if tag == SEQUENCE_END and not length:
                return at
            if tag != ITEM or at + length > end:
                break
            at += length
        raise UnreadableInstance("the encapsulated pixel data are truncated")

    def _hidden_items(self, value: int, end: int, place: Place) -> bool:
        """Collect the items of a UN value that is a sequence.

        Such a sequence is implicit little endian (DICOM PS3.5 section 6.2.2), or encoded like the
        file.
        """
        for big, implicit in dict.fromkeys(((False, True), (self._big, self._implicit))):
            walk = self._beside(big=big, implicit=implicit)
            try:
                walk.items(value, end, place, delimited=False)
            except (struct.error, UnreadableInstance):
                continue  # not a sequence in this encoding
            self.found.extend(walk.found)
            return True
        return False

    def _beside(self, *, big: bool, implicit: bool) -> "Walk":
        """Return a parser of the same file in another encoding."""
        return Walk(self._data, big=big, implicit=implicit, visits=self._visits)

    def _item_header(self, at: int) -> tuple[int, int]:
        group, number = self.tag_at(at)
        return group << 16 | number, int(self._long.unpack_from(self._data, at + 4)[0])

    def _expect(self, tag: int, at: int) -> None:
        if self._item_header(at) != (tag, 0):
            raise UnreadableInstance(f"an item has no {tag_name(tag)} at its end")
