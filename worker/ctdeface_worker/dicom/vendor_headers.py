"""Known private elements of scanners that are too large for the budget.

An element is known by group, private creator, element and value representation. It must also have
the size and the content of that header, once in a file, so that it is not a hiding place.
"""

import re
import struct
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ctdeface_worker.dicom.elements import Element
from ctdeface_worker.dicom.layout import Layout
from ctdeface_worker.dicom.smoothness import is_smooth

Creators: TypeAlias = Mapping[tuple[tuple[tuple[int, int], ...], int], str]
Check: TypeAlias = Callable[[bytes], bool]

_SETTING = re.compile(
    rb"(?:(?:[A-Z][a-z]+ ){1,2}[A-Z]?[a-z]*: )?"
    rb"(?:[A-Z][A-Za-z]{1,31}=(?:[\w.+*-]{0,20}|\([\d.*,+-]{1,40}\)))?"
)
_WORDS = re.compile(rb"[A-Za-z]+|[\d.]+")
_EXAM_RECORD = re.compile(
    re.escape(b"\0\1\0\0\0\xff\xff\xff\xff\1\0\0\0\0\0\0\0\x0c\2\0\0\0")
    + rb".ScannerFrameworkPublicInterfaces, Version=[\d.]{1,20}, Culture=neutral, "
    + re.escape(b"PublicKeyToken=null\5\1\0\0\0")
    + re.escape(b"6Philips.PmsCT.Host.Framework.Interfaces.ExamRecordInfo")
    + re.escape(b"\5\0\0\0\x0cExamRecordID\7ReconID\x08ResultID\tRequestID\x0cCatalogImage")
    + re.escape(b"\3\3\3\3\0" + 4 * b"\x0bSystem.Guid" + b"\1\2\0\0\0\4\xfd\xff\xff\xff")
    + re.escape(b"\x0bSystem.Guid\x0b\0\0\0\2_a\2_b\2_c\2_d\2_e\2_f\2_g\2_h\2_i\2_j\2_k")
    + re.escape(11 * b"\0" + b"\x08\7\7" + 8 * b"\2")
    + rb".{16}(?:\x01.\xff\xff\xff\xfd\xff\xff\xff.{16}){3}[\x00\x01]\x0b\x00*",
    re.DOTALL,
)
_DIRECTORY = struct.Struct("<161L")
_DIRECTORY_MAGIC = 0xAAAAAAAA
_DIRECTORY_ENTRIES = slice(7, 151)
_LARGEST_OFFSET = 1 << 20
_LARGEST_HEADER = 2560
_FILE_NAME = re.compile(rb"Filter_[A-Za-z_]{1,40}\.tbl")
_HISTOGRAM = struct.Struct(">LfHHHH")
_HISTOGRAM_SIZE = 2068
_LARGEST_PIXEL = 1 << 13
_MOST_NUMBERS = 48
_MOST_OTHER_WORDS = 2
_LARGEST_INTEGER = 1 << 16
_SMALLEST, _LARGEST = 1e-6, 1e9
_CLOSE = 48
"""Bytes of one number that differ less are like neighboring pixels."""


def private_creators(layout: Layout) -> Creators:
    """Return the private creator of each block (DICOM PS3.5 section 7.8.1)."""
    return {
        (element.path, element.tag): layout.data[element.value : element.end]
        .strip(b"\0 ")
        .decode("latin-1")
        for element in layout.elements
        if element.tag >> 16 & 1 and 0x10 <= element.tag & 0xFFFF <= 0xFF
    }


def creator_of(element: Element, creators: Creators) -> str:
    """Return the private creator of an element, else an empty text."""
    block = element.tag & 0xFFFF0000 | (element.tag & 0xFF00) >> 8
    return creators.get((element.path, block), "")


def known_headers(layout: Layout) -> Mapping[str, Element]:
    """Return the known headers of a file by name, such as "(01F7,xx14)".

    Scanners write each of them once, outside of sequences; any other is not known.
    """
    creators = private_creators(layout)
    found: dict[str, Element] = {}
    for element in layout.elements:
        name = f"({element.tag >> 16:04X},xx{element.tag & 0xFF:02X})"
        data = layout.data[element.value : element.end]
        if not element.path and _is_known(element, data, creator_of(element, creators)):
            found.setdefault(name, element)
    return found


def _is_known(element: Element, data: bytes, creator: str) -> bool:
    """Return whether an element is a known header with its content.

    Args:
        element: a private element.
        data: its value.
        creator: of its block.
    """
    key = (element.tag >> 16, creator, element.tag & 0xFF, element.vr)
    check = _KNOWN.get(key)
    return check is not None and len(data) <= _LARGEST_HEADER and check(data)


def _is_exam_record(data: bytes) -> bool:
    """Return whether a value is a .NET record of four GUIDs."""
    return _EXAM_RECORD.fullmatch(data) is not None


def _is_directory(data: bytes) -> bool:
    """Return whether a value lists number, offset and size of tables."""
    if len(data) != _DIRECTORY.size:
        return False
    magic, *numbers = _DIRECTORY.unpack(data)
    entries = [magic, *numbers][_DIRECTORY_ENTRIES]
    return (
        magic == _DIRECTORY_MAGIC
        and entries[::3] == list(range(1, len(entries) // 3 + 1))
        and max(entries) < _LARGEST_OFFSET
    )


def _is_settings(data: bytes) -> bool:
    """Return whether a value is text such as "Pitch=0.391, Voltage=120, "."""
    text = data.rstrip(b"\0")
    words = _WORDS.findall(text)
    settings = re.split(rb", (?![\d.*]+\))", text)
    return all(map(_SETTING.fullmatch, settings)) and not any(map(is_smooth, words))


def _is_table(data: bytes) -> bool:
    """Return whether a value is a sparse table of 32-bit numbers, perhaps with a file name."""
    numbers = _FILE_NAME.sub(lambda found: bytes(len(found[0])), data, count=1)
    words = [numbers[at : at + 4] for at in range(0, len(numbers), 4)]
    used = [word for word in words if any(word)]
    others = sum(not _is_number(word) for word in used)
    return len(used) <= _MOST_NUMBERS and others <= _MOST_OTHER_WORDS


def _is_number(word: bytes) -> bool:
    """Return whether four bytes are a small integer or a measured number."""
    if len(word) < 4:
        return False
    integer, real = struct.unpack("<l", word)[0], struct.unpack("<f", word)[0]
    is_measured = _SMALLEST <= abs(real) <= _LARGEST and max(word) - min(word) > _CLOSE
    return abs(integer) < _LARGEST_INTEGER or is_measured


def _is_empty_histogram(data: bytes) -> bool:
    """Return whether a histogram holds its deviation, mean and maximum only."""
    if len(data) != _HISTOGRAM_SIZE or data[_HISTOGRAM.size :].strip(b"\0"):
        return False
    bins, deviation, mean, _, _, most = _HISTOGRAM.unpack_from(data)
    return bool(
        bins <= 1 and _SMALLEST <= deviation <= _LARGEST and max(mean, most) < _LARGEST_PIXEL
    )


VARYING = frozenset({"(0043,xx29)"})
"""Known headers that may change from slice to slice."""
_KNOWN: Mapping[tuple[int, str, int, str], Check] = {
    (0x00E1, "ELSCINT1", 0x46, "OB"): _is_exam_record,
    (0x01F1, "ELSCINT1", 0x44, "OW"): _is_directory,
    (0x01F7, "ELSCINT1", 0x14, "OW"): _is_table,
    (0x01F7, "ELSCINT1", 0x19, "OW"): _is_table,
    (0x01F7, "ELSCINT1", 0x29, "OW"): _is_table,
    (0x01F7, "ELSCINT1", 0x2E, "OW"): _is_table,
    (0x01F7, "ELSCINT1", 0x31, "OW"): _is_table,
    (0x01F7, "ELSCINT1", 0x92, "OW"): _is_settings,
    (0x0043, "GEMS_PARM_01", 0x29, "OB"): _is_empty_histogram,
}
"""Philips Ingenuity: equal in all slices of a series, 1.4 KiB when compressed. GE HiSpeed CT/i: a
table of 2 KiB that changes from slice to slice and is empty in CT."""
