"""CT series with a picture hidden outside what is defaced, for attacks on the released bytes."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scipy import ndimage

from ctdeface_worker.dicom.pixels import encode
from ctdeface_worker.imaging.domain import PixelFormat
from tests.support.ct_files import CtFile, stack
from tests.support.picture_search import WIDTHS, reduced

SIZE = 64
NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
COMPRESSED = (JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless, RLELossless)
LONG = ("OB", "OW", "OF", "OD", "OL", "OV", "UN", "UT", "UC", "UR")
SHORT = ("LT", "ST", "LO", "SH", "PN", "CS", "DS", "IS", "UI", "US", "FL", "FD", "SL", "AT", "AE")
PIXELS = PixelFormat(
    rows=SIZE, columns=SIZE, bits_stored=12, signed=False, slope=1.0, intercept=-1024.0
)


def face() -> NDArray[np.uint16]:
    """A slice with the outline, eyes, nose and mouth of a face, as stored integers."""
    row, column = np.mgrid[:SIZE, :SIZE]

    def blob(y: float, x: float, height: float, width: float) -> NDArray[Any]:
        return np.asarray(((row - y) / height) ** 2 + ((column - x) / width) ** 2 < 1)

    picture = np.full((SIZE, SIZE), 24.0)
    for shape, value in (
        (blob(33, 32, 28, 21), 1100),
        (blob(24, 24, 3, 5), 700),
        (blob(24, 40, 3, 5), 650),
        (blob(36, 32, 7, 3), 1500),
        (blob(47, 33, 2, 9), 500),
        (blob(8, 32, 5, 16), 1900),
    ):
        picture[shape] = value
    smooth = ndimage.gaussian_filter(picture, 1.2)
    return (smooth + np.random.default_rng(1).normal(0, 12, smooth.shape)).clip(0).astype(np.uint16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What is to be hidden.

    Attributes:
        draw: decides between variants of a place.
        data: the picture.
    """

    draw: np.random.Generator
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """A series with a hidden picture.

    Attributes:
        place: where it is hidden.
        files: names and bytes of all files.
    """

    place: str
    files: dict[str, bytes]


def hide(seed: int) -> Hidden:
    """Hide the face, or the face at a lower resolution, at a place that the seed chooses."""
    draw = np.random.default_rng(seed)
    place = sorted(PLACES)[seed % len(PLACES)]
    content = PLACES[place](Secret(draw=draw, data=_payload(draw)))
    files = {f"{number:04d}.dcm": one for number, one in enumerate(content)}
    return Hidden(place=place, files=files)


def _payload(draw: np.random.Generator) -> bytes:
    """The picture in 8 or 16 bits, sometimes deflated."""
    gray = reduced(face(), int(draw.choice(WIDTHS)))
    kind = draw.choice(["u1", "u1", "<u2", ">u2"])
    data = (gray * (255 if kind == "u1" else 4095)).astype(kind).tobytes()
    return zlib.compress(data, 9) if draw.random() < 0.25 else data


def _slices(count: int = 4, **changes: Any) -> list[CtFile]:
    """Slices that show air only, so that nothing but the hidden picture can be found."""
    air = np.full((SIZE, SIZE), 24, np.uint16)
    return stack(count, stored=air, bits_stored=12, **changes)


def _syntax(draw: np.random.Generator) -> str:
    return str(draw.choice(NATIVE))


def element(tag: int, vr: str, value: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Encode one element with any bytes as its value."""
    value += b"\0" * (len(value) % 2)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == ImplicitVRLittleEndian:
        return head + struct.pack("<L", len(value)) + value
    if vr in LONG or vr == "SQ":
        return head + vr.encode() + bytes(2) + struct.pack(f"{order}L", len(value)) + value
    return head + vr.encode() + struct.pack(f"{order}H", len(value)) + value


def put_before_pixels(file: CtFile, *extra: bytes, behind: bytes = b"") -> bytes:
    """The file with encoded elements before its pixel data, and bytes behind them."""
    deflated = file.syntax == DeflatedExplicitVRLittleEndian
    plain = replace(file, syntax=ExplicitVRLittleEndian) if deflated else file
    content = plain.content
    head = 8 if plain.syntax == ImplicitVRLittleEndian else 12
    at = len(content) - head - 2 * SIZE * SIZE
    made = content[:at] + b"".join(extra) + content[at:] + behind
    if not deflated:
        return made
    old, new = (f"{uid}\0".encode() for uid in (ExplicitVRLittleEndian, file.syntax))
    body = made.index(b"\x08\x00", made.index(old))
    new += b"\0" * (len(new) % 2)
    meta = made[:body].replace(old + b"\0" * (len(old) % 2), new)
    at = meta.index(b"\2\0\x10\0UI") + 6
    meta = meta[:at] + struct.pack("<H", len(new)) + meta[at + 2 :]
    at = meta.index(b"\2\0\0\0UL") + 8
    size = struct.unpack_from("<L", meta, at)[0] + len(meta) - body
    meta = meta[:at] + struct.pack("<L", size) + meta[at + 4 :]
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflate = engine.compress(made[body:]) + engine.flush()
    return meta + deflate + b"\0" * (len(deflate) % 2)


def _creator(group: int, syntax: str, name: bytes = b"VENDOR") -> bytes:
    return element(group << 16 | 0x10, "LO", name, syntax)


def _with_first(files: list[CtFile], first: bytes) -> list[bytes]:
    return [first, *(file.content for file in files[1:])]


def _one_value(secret: Secret) -> list[bytes]:
    """One private element of any value representation."""
    files = _slices(syntax=_syntax(secret.draw))
    vr = str(secret.draw.choice(LONG + SHORT[:2]))
    group = int(secret.draw.choice([0x0009, 0x0019, 0x0029, 0x7FD1]))
    parts = (
        _creator(group, files[0].syntax),
        element(group << 16 | 0x1010, vr, secret.data, files[0].syntax),
    )
    return _with_first(files, put_before_pixels(files[0], *parts))


def _many_values(secret: Secret) -> list[bytes]:
    """Many small private elements of any value representation."""
    files, size = (
        _slices(syntax=_syntax(secret.draw)),
        int(secret.draw.choice([16, 32, 64, 256, 512])),
    )
    vr = str(secret.draw.choice(LONG + SHORT))
    parts = [secret.data[at : at + size] for at in range(0, len(secret.data), size)]
    made = []
    for number, part in enumerate(parts):
        group = 0x0011 + 2 * (number // 200)
        if not number % 200:
            made.append(_creator(group, files[0].syntax))
        made.append(element(group << 16 | 0x1010 + number % 200, vr, part, files[0].syntax))
    return _with_first(files, put_before_pixels(files[0], *made))


def _nested(secret: Secret) -> list[bytes]:
    """Items of sequences, nested up to five deep."""
    files = _slices(syntax=_syntax(secret.draw))
    syntax, vr = files[0].syntax, str(secret.draw.choice(LONG))
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    inner = _creator(0x0029, syntax) + element(0x00291010, vr, secret.data, syntax)
    tag, kind = ((0x00081140, "SQ"), (0x00291020, "SQ"), (0x00291020, "UN"))[
        secret.draw.integers(3)
    ]
    if kind == "UN":  # always implicit little endian inside (DICOM PS3.5 section 6.2.2)
        syntax_inside = ImplicitVRLittleEndian
        inner = _creator(0x0029, syntax_inside) + element(
            0x00291010, vr, secret.data, syntax_inside
        )
        order = "<"
    for _ in range(int(secret.draw.integers(1, 6))):
        item = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(inner)) + inner
        inner = (
            element(tag, "SQ", item, ImplicitVRLittleEndian if kind == "UN" else syntax)
            if _ < 4
            else item
        )
    if not inner.startswith(struct.pack(f"{order}HH", 0xFFFE, 0xE000)):
        inner = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(inner)) + inner
    made = [_creator(0x0029, syntax)] if tag >> 16 & 1 else []
    return _with_first(files, put_before_pixels(files[0], *made, element(tag, kind, inner, syntax)))


def _numbers(secret: Secret) -> list[bytes]:
    """Small numbers of the standard, in items or in private elements."""
    files, made = _slices(syntax=_syntax(secret.draw)), []
    syntax = files[0].syntax
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    tag, vr, size = (
        (0x00280303, "US", 2),
        (0x00189219, "SS", 2),
        (0x00720052, "UL", 4),
        (0x00189073, "FD", 8),
        (0x00720076, "FL", 4),
    )[secret.draw.integers(5)]
    for at in range(0, len(secret.data), size):
        one = element(tag, vr, secret.data[at : at + size].ljust(size, b"\0"), syntax)
        made.append(struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(one)) + one)
    items = element(0x00081140, "SQ", b"".join(made), syntax)
    return _with_first(files, put_before_pixels(files[0], items))


def _public_text(secret: Secret) -> list[bytes]:
    """Texts of the standard, in printable gray levels."""
    files = _slices(syntax=_syntax(secret.draw))
    gray = reduced(face(), int(secret.draw.choice(WIDTHS))).ravel()
    text = bytes(int(32 + value * 94) for value in gray).replace(b"\\", b"]")
    if secret.draw.random() < 0.5:
        made = [element(0x00204000, "LT", text[:10_000], files[0].syntax)]
    else:
        tags = (0x00081030, 0x0008103E, 0x00081080, 0x00104000, 0x00180010, 0x00181030, 0x00321060)
        size = -(-len(text) // len(tags))
        made = [
            element(tag, "LO", text[number * size : (number + 1) * size], files[0].syntax)
            for number, tag in enumerate(tags)
        ]
    return _with_first(files, put_before_pixels(files[0], *made))


def _curve(secret: Secret) -> list[bytes]:
    """Retired curves."""
    files, count = _slices(syntax=_syntax(secret.draw)), int(secret.draw.integers(1, 9))
    size = -(-len(secret.data) // count)
    made = [
        element(
            0x50003000 + (number << 17), "OW", secret.data[number * size :][:size], files[0].syntax
        )
        for number in range(count)
    ]
    return _with_first(files, put_before_pixels(files[0], *made))


def _overlay(secret: Secret) -> list[bytes]:
    """Overlay data, or the pixel data of an icon."""
    files = _slices(syntax=_syntax(secret.draw))
    syntax = files[0].syntax
    if secret.draw.random() < 0.5:
        return _with_first(
            files, put_before_pixels(files[0], element(0x60003000, "OW", secret.data, syntax))
        )
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    inner = element(0x7FE00010, "OB", secret.data, syntax)
    item = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(inner)) + inner
    return _with_first(files, put_before_pixels(files[0], element(0x00880200, "SQ", item, syntax)))


def _float_pixels(secret: Secret) -> list[bytes]:
    """Float pixel data beside the pixel data."""
    files = _slices(syntax=_syntax(secret.draw))
    tag, vr = ((0x7FE00008, "OF"), (0x7FE00009, "OD"))[secret.draw.integers(2)]
    made = element(tag, vr, secret.data + bytes(-len(secret.data) % 8), files[0].syntax)
    return _with_first(files, put_before_pixels(files[0], made))


def _behind(secret: Secret) -> list[bytes]:
    """Behind the pixel data: as padding of the data set, or without any element."""
    files = _slices(syntax=_syntax(secret.draw))
    padding = element(0xFFFCFFFC, "OB", secret.data, files[0].syntax)
    behind = padding if secret.draw.random() < 0.5 else secret.data
    return _with_first(files, put_before_pixels(files[0], behind=behind))


def _preambles(secret: Secret) -> list[bytes]:
    """Preambles of all files."""
    files = _slices(max(4, -(-len(secret.data) // 128)))
    return [
        secret.data[number * 128 :][:128].ljust(128, b"\0") + file.content[128:]
        for number, file in enumerate(files)
    ]


def _meta(secret: Secret) -> list[bytes]:
    """Private information of the file meta information."""
    files = _slices()
    made = element(0x00020100, "UI", b"1.2.3") + element(0x00020102, "OB", secret.data)
    content = files[0].content
    length = struct.unpack_from("<L", content, 140)[0]
    body = 144 + length
    first = content[:140] + struct.pack("<L", length + len(made)) + content[144:body] + made
    return _with_first(files, first + content[body:])


def _tags(secret: Secret) -> list[bytes]:
    """Numbers of empty private elements."""
    files, made = _slices(syntax=_syntax(secret.draw)), []
    for number, at in enumerate(range(0, len(secret.data) - 1, 2)):
        tag = (0x0101 + 2 * number) << 16 | max(
            0x1000, int.from_bytes(secret.data[at : at + 2], "little")
        )
        made.append(element(tag, "UN", b"", files[0].syntax))
    return _with_first(files, put_before_pixels(files[0], *made))


def _group_lengths(secret: Secret) -> list[bytes]:
    """Retired lengths of groups that do not exist."""
    files, made = _slices(syntax=_syntax(secret.draw)), []
    for number, at in enumerate(range(0, len(secret.data), 4)):
        tag = (0x0102 + 2 * number) << 16
        if tag >> 16 < 0x5000:
            made.append(
                element(tag, "UL", secret.data[at : at + 4].ljust(4, b"\0"), files[0].syntax)
            )
    return _with_first(files, put_before_pixels(files[0], *made))


def _split_over_series(secret: Secret) -> list[bytes]:
    """A part in each slice: binary, as text, as numbers, in a private or public element."""
    count = int(secret.draw.choice([16, 32]))
    files, size = _slices(count, syntax=_syntax(secret.draw)), -(-len(secret.data) // count)
    size += size % 2
    vr = str(secret.draw.choice([*LONG, "LT", "ST", "FL", "US", "SL", "LO"]))
    tag = int(secret.draw.choice([0x00291010, 0x00204000, 0x50003000]))
    made = []
    for number, file in enumerate(files):
        part = element(tag, vr, secret.data[number * size :][:size], file.syntax)
        creator = [_creator(0x0029, file.syntax)] if tag >> 16 & 1 else []
        made.append(put_before_pixels(file, *creator, part))
    return made


def _known_headers(secret: Secret) -> list[bytes]:
    """Elements that a scanner's header has, with other content."""
    files = _slices(syntax=ExplicitVRLittleEndian)
    known = (
        (0x00E11046, "OB", b"\0\1\0\0\0\xff\xff\xff\xff\1"),
        (0x01F11044, "OW", b"\xaa\xaa\xaa\xaa\x15\0\0\0"),
        (0x01F71092, "OW", b"User Input: Pitch="),
    )
    made = []
    for tag, vr, start in known:
        made += [
            _creator(tag >> 16, files[0].syntax, b"ELSCINT1"),
            element(tag, vr, start + secret.data),
        ]
    return _with_first(files, put_before_pixels(files[0], *made))


def _unused_bits(secret: Secret) -> list[bytes]:
    """Bits of the pixel data above those stored."""
    gray = reduced(face(), SIZE) * secret.draw.choice([3, 7, 15])
    files = _slices()
    drawn = np.asarray(files[0].stored) | (gray.astype(np.uint16) << 12)
    return _with_first(files, replace(files[0], stored=drawn).content)


def _padding(secret: Secret) -> list[bytes]:
    """Pixels declared as padding: bright, or within air."""
    gray = reduced(face(), SIZE)
    low, high = ((12_000, 16_000), (-2900, -1900))[secret.draw.integers(2)]
    drawn = (low + gray * (high - low)).astype(np.int16)
    limits = {"PixelPaddingValue": low, "PixelPaddingRangeLimit": high}
    air = np.full((SIZE, SIZE), -1000, np.int16)
    files = stack(4, intercept=0.0, elements=limits)
    images = [air, drawn, air, air]
    return [replace(file, stored=one).content for file, one in zip(files, images, strict=True)]


def compressed(file: CtFile, syntax: str, *fragments: bytes, table: bytes = b"\0\0\0\0") -> bytes:
    """The file in a compressed syntax, with these fragments instead of its own if there are any."""
    stored = np.asarray(file.stored)
    value = encode(stored, PIXELS, syntax)
    assert value is not None
    parts = fragments or (frame_of(value),)
    even = [table, *(part + b"\0" * (len(part) % 2) for part in parts)]
    items = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in even)
    plain = replace(file, syntax=ExplicitVRLittleEndian).content
    at = len(plain) - 12 - 2 * SIZE * SIZE
    old = f"{ExplicitVRLittleEndian}\0".encode()
    new = syntax.encode()
    new += b"\0" * (len(new) % 2)
    old += b"\0" * (len(old) % 2)
    start = plain.index(b"\2\0\x10\0UI")
    length = struct.unpack_from("<L", plain, 140)[0] + len(new) - len(old)
    head = plain[:140] + struct.pack("<L", length) + plain[144:start]
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(new)) + new
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return head + meta + plain[start + 8 + len(old) : at] + pixels + items + end


def frame_of(value: bytes) -> bytes:
    """The first frame behind an empty or filled offset table."""
    table = struct.unpack_from("<L", value, 4)[0]
    size = struct.unpack_from("<L", value, 12 + table)[0]
    return value[16 + table : 16 + table + size]


def _frame(file: CtFile, syntax: str) -> bytes:
    value = encode(np.asarray(file.stored), PIXELS, syntax)
    assert value is not None
    frame = frame_of(value)
    return frame if syntax == RLELossless else frame[: frame.rindex(b"\xff\xd9") + 2]


def _segments(secret: Secret) -> list[bytes]:
    """Application data, comments and unknown segments of compressed frames."""
    files, syntax = _slices(), str(secret.draw.choice(COMPRESSED[:3]))
    frame = _frame(files[0], syntax)
    is_2000 = syntax == JPEG2000Lossless
    markers = b"\x64\x55\x57\x58\x63" if is_2000 else b"\xfe\xe0\xe1\xe8\xef\xf8\xc4\xdb\xf9"
    marker = b"\xff" + bytes([int(secret.draw.choice(list(markers)))])
    at = frame.index(b"\xff\x90") if is_2000 else 2
    extra = marker + struct.pack(">H", 2 + len(secret.data)) + secret.data
    return _all_compressed(files, syntax, frame[:at] + extra + frame[at:])


def _all_compressed(files: list[CtFile], syntax: str, *first: bytes, **more: Any) -> list[bytes]:
    return [
        compressed(files[0], syntax, *first, **more),
        *(compressed(file, syntax) for file in files[1:]),
    ]


def _around_frames(secret: Secret) -> list[bytes]:
    """Behind the end of the frame, as another fragment, or in coded data that no pixel needs."""
    files, syntax = _slices(), str(secret.draw.choice(COMPRESSED))
    frame, way = _frame(files[0], syntax), secret.draw.integers(3)
    stuffed = secret.data.replace(b"\xff", b"\xfe")
    if way == 0:
        return _all_compressed(files, syntax, frame + secret.data)
    if way == 1 or syntax == RLELossless:
        return _all_compressed(files, syntax, frame, secret.data)
    return _all_compressed(files, syntax, frame[:-2] + stuffed + frame[-2:])


def _tile_part(secret: Secret) -> list[bytes]:
    """Behind the packets of a JPEG 2000 tile-part, whose length counts it."""
    files = _slices()
    frame = _frame(files[0], JPEG2000Lossless)
    at = frame.index(b"\xff\x90") + 6
    (length,) = struct.unpack_from(">L", frame, at)
    extra = secret.data.replace(b"\xff", b"\xfe")
    longer = frame[:at] + struct.pack(">L", length + len(extra)) + frame[at + 4 : -2]
    return _all_compressed(files, JPEG2000Lossless, longer + extra + frame[-2:])


def _offset_tables(secret: Secret) -> list[bytes]:
    """Basic and extended offset tables."""
    files, syntax = _slices(), str(secret.draw.choice(COMPRESSED))
    if secret.draw.random() < 0.5:
        return _all_compressed(files, syntax, table=secret.data + bytes(-len(secret.data) % 4))
    tag = int(secret.draw.choice([0x7FE00001, 0x7FE00002]))
    first = compressed(files[0], syntax)
    at = first.rindex(b"\xe0\x7f\x10\x00OB")
    made = first[:at] + element(tag, "OV", secret.data + bytes(-len(secret.data) % 8)) + first[at:]
    return [made, *(compressed(file, syntax) for file in files[1:])]


def _reserved_bytes(secret: Secret) -> list[bytes]:
    """Reserved bytes of value representations, and lengths of delimiters."""
    files, made = _slices(), [_creator(0x0029, ExplicitVRLittleEndian)]
    if secret.draw.random() < 0.5:
        for number, at in enumerate(range(0, len(secret.data), 2)):
            tag = (0x0029 + 2 * (number // 200)) << 16 | 0x1010 + number % 200
            head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
            made.append(head + b"UN" + secret.data[at : at + 2].ljust(2, b"\0") + bytes(4))
    else:
        items = b"".join(
            struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
            + struct.pack("<HH", 0xFFFE, 0xE00D)
            + secret.data[at : at + 4].ljust(4, b"\0")
            for at in range(0, len(secret.data), 4)
        )
        made.append(element(0x00291010, "SQ", items))
    return _with_first(files, put_before_pixels(files[0], *made))


PLACES: dict[str, Callable[[Secret], list[bytes]]] = {
    "one value": _one_value,
    "many values": _many_values,
    "nested": _nested,
    "numbers": _numbers,
    "public text": _public_text,
    "curve": _curve,
    "overlay or icon": _overlay,
    "float pixels": _float_pixels,
    "behind the pixels": _behind,
    "preambles": _preambles,
    "file meta information": _meta,
    "tags": _tags,
    "group lengths": _group_lengths,
    "split over a series": _split_over_series,
    "known headers": _known_headers,
    "unused bits": _unused_bits,
    "padding": _padding,
    "segments": _segments,
    "around frames": _around_frames,
    "tile-part": _tile_part,
    "offset tables": _offset_tables,
    "reserved bytes": _reserved_bytes,
}
