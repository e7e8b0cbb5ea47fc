"""Measure the bytes outside the pixel data that could be a picture.

People and networks recognize faces from about 16 x 16 to 32 x 32 gray pixels. Frontal pictures of
real heads need, deflated, 205 to 225 bytes at 16 x 16 pixels of 8 bits, 419 to 458 at 24 x 24, 711
to 779 at 32 x 32, and 356 to 380 at 32 x 32 with 32 gray levels. So the budgets of an instance and
of a series are 320 bytes after compression; real scans need up to 190. Smooth data count by their
samples, because few gray levels compress better. Zeros need nothing.

Well-formed numbers, dates, UIDs and short texts are ordinary. A picture must be encoded anew to
pass as such values, so they have budgets of their own.
"""

import re
import struct
import zlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import islice
from typing import Literal, NamedTuple

from ctdeface_worker.dicom import vendor_headers
from ctdeface_worker.dicom.elements import LONG_VRS, Element, is_public, known_vr
from ctdeface_worker.dicom.layout import PIXEL_DATA, PREAMBLE, Layout
from ctdeface_worker.dicom.smoothness import is_smooth, samples_of_a_picture

INSTANCE_BUDGET = 320
"""Compressed bytes of opaque values that one instance may hold."""
SERIES_BUDGET = 320
"""Compressed bytes of different opaque values that all instances of a series may hold."""
ORDINARY_BUDGET = 2048
"""Compressed bytes of texts and of private or nested numbers that one instance may hold."""
SERIES_TEXT_BUDGET = 2048
"""Compressed bytes of different texts that all instances of a series may hold."""
LARGEST_RATIO = 16
"""Large values count at least their size divided by this, however well they compress."""

_LARGEST_INSPECTED = 4096
_MOST_PRIVATE = 256
"""More private or unknown elements than this count with their tags."""
_MOST_COMPONENTS = 16
_LONGEST_TEXT = 64
"""Characters of the VR LO (DICOM PS3.5 section 6.2), as `_LONGEST_LT` of LT."""
_LONGEST_LT = 10_240
_LARGEST_FLOATS = 48
_LARGEST_INTEGERS = 16
_WORD = 2
_FORMS = {
    "AE": re.compile(rb"[\w .:-]{0,16}"),
    "AS": re.compile(rb"\d{3}[DWMY]|"),
    "CS": re.compile(rb"[\w .:/+-]{0,16}"),
    "DA": re.compile(rb"\d{8}|\d{4}\.\d\d\.\d\d|"),
    "DS": re.compile(rb"[ ]*[+-]?[\d.]{0,24}(?:[Ee][+-]?\d{1,3})?[ ]*"),
    "DT": re.compile(rb"[\d.+-]{0,26}"),
    "IS": re.compile(rb"[ ]*[+-]?\d{0,12}[ ]*"),
    "TM": re.compile(rb"[\d:]{0,8}(?:\.\d{1,6})?"),
    "UI": re.compile(rb"[\d.]{0,64}"),
}
_FREE_TEXTS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_FLOATS = {"FL": "f", "FD": "d"}
_INTEGERS = {"AT": 2, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
_PLAUSIBLE = (1e-6, 1e9)
"""Magnitudes of measured numbers; random bytes rarely are such a number."""
_DIGITS = frozenset({"DS", "IS"})
_NO_DIGITS = re.compile(rb"[^0-9]+")
_CLOSE = 48
_ORDERS: tuple[Literal["little"], Literal["big"]] = ("little", "big")
_PIXEL_LIMITS = frozenset(range(0x00280106, 0x0028010A)) | {0x00280120, 0x00280121}
"""Smallest and largest pixel values and padding, which change from slice to slice."""
_TEXT = re.compile(rb"[\x20-\x7e\x80-\xff\x1b\r\n\t\f]*")
"""Texts of all character sets (DICOM PS3.5 section 6.1)."""
_LONGEST_WORD = 32


class Kind(Enum):
    """Kind of the content of a value."""

    PLAIN = auto()
    NUMBER = auto()
    TEXT = auto()
    OPAQUE = auto()
    KNOWN = auto()
    """A known header of a scanner, equal in all instances of a series."""


class OpaqueValue(NamedTuple):
    """Bytes outside the pixel data that count towards a budget.

    Attributes:
        name: where they are, for the report.
        data: the bytes.
        kind: the budget.
        width: bytes of each integer, 0 for other values; counters differ by little.
        tag: of a private or retired element that may be zeroed, such as "(0029,1010)"; else empty.
    """

    name: str
    data: bytes
    kind: Kind = Kind.OPAQUE
    width: int = 0
    tag: str = ""


def values_that_count(
    layout: Layout, excluded: frozenset[str] = frozenset()
) -> tuple[OpaqueValue, ...]:
    """Return all values that count towards a budget.

    Args:
        layout: the parsed file.
        excluded: tags that do not count, such as "(0029,1010)".
    """
    found = [
        *_outside_elements(layout),
        *_tags_of_many_elements(layout),
        *_pictures_of_numbers(layout),
    ]
    known = {one.start: name for name, one in vendor_headers.known_headers(layout).items()}
    lengths = _group_lengths(layout)
    for element in layout.elements:
        if _is_counted_elsewhere(element) or element.tag_name in excluded:
            continue
        data = layout.data[element.value : element.end]
        number = int.from_bytes(data, "little" if layout.little_endian else "big")
        if not element.tag & 0xFFFF and lengths.get(element.tag >> 16) == number:
            continue
        name = known.get(element.start)
        found += [_known_value(name, element, data)] if name else _judged(element, data)
    return tuple(found)


def _known_value(name: str, element: Element, data: bytes) -> OpaqueValue:
    """Return a known header, which counts where it differs from that of the slice before."""
    content = b"" if name in vendor_headers.VARYING else data
    return OpaqueValue(name, content, Kind.KNOWN, tag=element.tag_name)


def budget_problem(values: Sequence[OpaqueValue]) -> str:
    """Return what exceeds the budget of an instance, else an empty text.

    The text continues the sentence "this instance …".
    """
    opaque = [value for value in values if value.kind is Kind.OPAQUE]
    ordinary = [value for value in values if value.kind in {Kind.NUMBER, Kind.TEXT}]
    for counted, budget in ((opaque, INSTANCE_BUDGET), (ordinary, ORDINARY_BUDGET)):
        size = _size(value.data for value in counted)
        if size > budget:
            largest = max(counted, key=lambda value: _size([value.data]))
            return (
                f"holds {size} bytes (compressed) outside its pixel data, most of them in "
                f"{largest.name}, which could be another picture of the face; at most {budget} "
                "are allowed: export the series without private elements"
            )
    return ""


def series_budget_problem(instances: Iterable[Sequence[OpaqueValue]]) -> str:
    """Return what exceeds the budgets of a series, else an empty text.

    Equal values count once, and known headers where they differ; integers count by their difference
    to the instance before. The text continues the sentence "this series …".
    """
    listed = list(instances)
    for kind, budget in ((Kind.OPAQUE, SERIES_BUDGET), (Kind.TEXT, SERIES_TEXT_BUDGET)):
        size = _size(_news(listed, kind))
        if size > budget:
            return (
                f"holds {size} bytes (compressed) outside its pixel data that differ from slice "
                f"to slice, which could be another picture of the face; at most {budget} are "
                "allowed: export the series without private elements"
            )
    return ""


def tags_to_blank(instances: Sequence[Sequence[OpaqueValue]]) -> frozenset[str]:
    """Return the elements to zero so that a series keeps its budgets, the largest first.

    Only opaque values and integers of private and retired elements are named, and known headers
    last. If they do not suffice, what is left exceeds the budgets still.

    Args:
        instances: the values of each instance.
    """
    sizes: dict[str, int] = {}
    known: set[str] = set()
    for value in {value for values in instances for value in values}:
        if value.tag and (value.kind in {Kind.OPAQUE, Kind.KNOWN} or value.width):
            sizes[value.tag] = max(sizes.get(value.tag, 0), _size([value.data]))
            known |= {value.tag} if value.kind is Kind.KNOWN else set()
    largest = sorted(sizes, key=lambda tag: (tag in known, -sizes[tag], tag))
    fewest = bisect_left(
        range(len(largest)), 1, key=lambda count: int(_fits(instances, largest[:count]))
    )
    return frozenset(largest[:fewest])


def _fits(instances: Sequence[Sequence[OpaqueValue]], blanked: Collection[str]) -> bool:
    kept = without(instances, set(blanked))
    return not series_budget_problem(kept) and not any(map(budget_problem, kept))


def without(
    instances: Sequence[Sequence[OpaqueValue]], blanked: Collection[str]
) -> list[list[OpaqueValue]]:
    """Return the values of each instance without those of zeroed elements."""
    return [[value for value in values if value.tag not in blanked] for values in instances]


def _outside_elements(layout: Layout) -> Iterator[OpaqueValue]:
    preamble = layout.data[:PREAMBLE]
    if preamble.strip(b"\0"):
        yield OpaqueValue("the preamble", preamble)
    reserved = b"".join(
        layout.data[element.start + 6 : element.start + 8]
        for element in layout.elements
        if layout.data[element.start + 4 : element.start + 6] in LONG_VRS
        and element.value == element.start + 12
    )
    if reserved.strip(b"\0"):
        yield OpaqueValue("the reserved bytes of value representations", reserved)


def _tags_of_many_elements(layout: Layout) -> Iterator[OpaqueValue]:
    """Yield the tags of private elements, if there are very many."""
    private = (element for element in layout.elements if not is_public(element.tag))
    tags = b"".join(
        layout.data[element.start : element.value]
        for element in islice(private, _MOST_PRIVATE, None)
    )
    if tags:
        yield OpaqueValue(f"the tags of more than {_MOST_PRIVATE} private elements", tags)


def _pictures_of_numbers(layout: Layout) -> Iterator[OpaqueValue]:
    """Yield digits or bytes of all numbers, if they follow each other like pixels."""
    texts, numbers = bytearray(), bytearray()
    for element in layout.elements:
        vr = _vr(element, public=is_public(element.tag))
        if vr in _DIGITS:
            texts += layout.data[element.value : element.end]
        elif vr in _INTEGERS or vr in _FLOATS:
            numbers += layout.data[element.value : element.end]
    for joined in (_NO_DIGITS.sub(b"", bytes(texts)), bytes(numbers)):
        if samples_of_a_picture(joined) > INSTANCE_BUDGET:
            yield OpaqueValue("the numbers of its elements", joined)


def _group_lengths(layout: Layout) -> dict[int, int]:
    """Return the bytes of each group behind its group length."""
    sizes: dict[int, int] = {}
    for element in layout.elements:
        if not element.path and element.tag & 0xFFFF:
            group = element.tag >> 16
            sizes[group] = sizes.get(group, 0) + element.end - element.start
    return sizes


def _is_counted_elsewhere(element: Element) -> bool:
    """Return whether the value is edited or inspected on its own."""
    own_pixels = element.tag == PIXEL_DATA and not element.path
    return own_pixels or element.is_picture or element.vr == "SQ"


def _judged(element: Element, data: bytes) -> Iterator[OpaqueValue]:
    if not data.strip(b"\0") or (element.tag in _PIXEL_LIMITS and len(data) == _WORD):
        return
    public = is_public(element.tag)
    vr = _vr(element, public=public)
    kind = _kind(vr, data, public=public)
    if kind is Kind.PLAIN and element.path and vr != "UI":
        kind = Kind.NUMBER
    if kind is Kind.PLAIN:
        return
    if data.count(data[:1]) == len(data):
        data = data[:1]
    tag = "" if public else element.tag_name
    yield OpaqueValue(element.name, data, kind, _INTEGERS.get(vr, 0), tag)


def _vr(element: Element, *, public: bool) -> str:
    if element.vr != "UN" or not public:
        return element.vr[:2]  # the dictionary has "US or SS"
    return "LO" if element.tag >> 16 & 1 else known_vr(element.tag)[:2]


def _kind(vr: str, data: bytes, *, public: bool) -> Kind:
    if vr in _FLOATS:
        return Kind.NUMBER if _is_plausible(data, _FLOATS[vr]) else Kind.OPAQUE
    if vr in _INTEGERS:
        return Kind.NUMBER if _are_small(data, _INTEGERS[vr]) else Kind.OPAQUE
    text = data.strip(b"\0 ")
    if len(text) > _LONGEST_LT or is_smooth(text.replace(b"\\", b"")):
        return Kind.OPAQUE
    components = text.split(b"\\")
    if vr in _FORMS:
        return _kind_of_form(vr, components, public=public)
    if vr in _FREE_TEXTS or vr == "UN":
        return _kind_of_text(components, public=public and vr != "UN")
    return Kind.OPAQUE


def _kind_of_form(vr: str, components: list[bytes], *, public: bool) -> Kind:
    form = _FORMS[vr]
    well_formed = len(components) <= _MOST_COMPONENTS and all(map(form.fullmatch, components))
    if not well_formed:
        return Kind.OPAQUE
    return Kind.PLAIN if public or vr == "UI" else Kind.NUMBER


def _kind_of_text(components: list[bytes], *, public: bool) -> Kind:
    for vr in ("DS", "UI"):
        if _kind_of_form(vr, components, public=False) is not Kind.OPAQUE:
            return Kind.NUMBER
    return Kind.TEXT if public and all(map(_reads_like_text, components)) else Kind.OPAQUE


def _reads_like_text(text: bytes) -> bool:
    """Return whether a text is short, or consists of words.

    Characters of other scripts take up to three bytes each.
    """
    if not _TEXT.fullmatch(text):
        return False
    short = _LONGEST_TEXT if text.isascii() and b"\x1b" not in text else 3 * _LONGEST_TEXT
    return len(text) <= short or max(map(len, text.split())) <= _LONGEST_WORD


def _are_small(data: bytes, size: int) -> bool:
    """Return whether few integers use about half of their bits only."""
    if len(data) > _LARGEST_INTEGERS or len(data) % size:
        return False
    limit = 1 << (4 * size + 2)
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return any(
        all(-limit < int.from_bytes(part, order, signed=True) < limit for part in parts)
        for order in _ORDERS
    )


def _is_plausible(data: bytes, letter: str) -> bool:
    """Return whether binary floats are measured numbers."""
    size = struct.calcsize(letter)
    if len(data) > _LARGEST_FLOATS or len(data) % size:
        return False
    count = len(data) // size
    least, most = _PLAUSIBLE
    return any(
        all(number == 0 or least <= abs(number) <= most for number in struct.unpack(form, data))
        for form in (f"<{count}{letter}", f">{count}{letter}")
    ) and not (size == 4 and any(map(_are_close, zip(*[iter(data)] * 4, strict=True))))


def _are_close(number: tuple[int, ...]) -> bool:
    """Return whether the bytes of a number are like neighboring pixels."""
    return 0 < max(number) - min(number) <= _CLOSE


def _size(values: Iterable[bytes]) -> int:
    """Return the bytes that the values need when compressed, or their samples as a picture."""
    listed = list(values)
    joined = b"".join(listed)
    engine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    size = len(engine.compress(joined) + engine.flush()) if joined else 0
    if len(joined) > _LARGEST_INSPECTED:
        return max(size, len(joined) // LARGEST_RATIO)
    return max(size, *map(samples_of_a_picture, (joined, *listed)))


def _news(instances: Sequence[Sequence[OpaqueValue]], kind: Kind) -> Iterator[bytes]:
    """Yield what each instance adds to those before."""
    known: dict[str, set[bytes]] = {}
    last: dict[str, int] = {}
    for values in instances:
        for value in values:
            seen = known.setdefault(value.name, set())
            opaque = value.width or value.kind is Kind.KNOWN
            counted = Kind.OPAQUE if opaque else value.kind
            if counted is not kind or value.data in seen:
                continue
            is_free = value.kind is Kind.KNOWN and not seen
            seen.add(value.data)
            if is_free:
                continue
            if value.width and len(value.data) <= _LARGEST_INTEGERS:
                yield _difference(value, last)
            else:
                yield value.data


def _difference(value: OpaqueValue, last: dict[str, int]) -> bytes:
    size = len(value.data)
    number = int.from_bytes(value.data, "little")
    step = (number - last.get(value.name, 0)) % (1 << 8 * size)
    last[value.name] = number
    return step.to_bytes(size, "little")
