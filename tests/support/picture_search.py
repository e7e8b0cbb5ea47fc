"""Look for a picture in bytes, without code of ctdeface."""

import re
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import fft, ndimage

WIDTHS = tuple(range(32, 65, 2))
"""Widths of a square picture in pixels."""
FOUND = 0.75
"""Correlation from which on a picture counts as found."""
_SAMPLES = ("u1", "<u2", ">u2", "high bits")
_SMALLEST = 500
"""Bytes of the smallest picture of this size, compressed."""
_LONG_HEADER = 3000
"""Bytes; the headers of these files have about 1 000."""
_DEFLATED = re.compile(rb"\x78[\x01\x5e\x9c\xda]")


def reduced(picture: NDArray[Any], width: int) -> NDArray[np.float64]:
    """The picture at another width, with values from 0 to 1."""
    if width != picture.shape[1]:
        zoomed = ndimage.zoom(picture.astype(float), width / picture.shape[1], order=1)
    else:
        zoomed = picture.astype(float)
    low, high = zoomed.min(), zoomed.max()
    return np.asarray((zoomed - low) / (high - low))


class PictureSearch:
    """Normalized cross-correlation of a picture with every window of some bytes.

    A picture of any of the widths is looked for in samples of 8 and 16 bits at every offset. The
    bytes are also inflated, and the values of a file's elements joined, as the one who hid the
    picture would do.
    """

    def __init__(self, picture: NDArray[Any]) -> None:
        """Prepare the picture at every width."""
        self._templates = [_unit(reduced(picture, width).ravel()) for width in WIDTHS]

    def best(self, files: Iterable[bytes]) -> float:
        """The highest correlation in the files of one series."""
        found = 0.0
        for view in _views(list(files)):
            if len(zlib.compress(view)) < _SMALLEST:
                continue
            for kind in _SAMPLES:
                for offset in (0,) if kind == "u1" else (0, 1):
                    found = max(found, self._best_in(_samples(view[offset:], kind)))
                    if found >= FOUND:
                        return found
        return found

    def _best_in(self, samples: NDArray[np.float64]) -> float:
        templates = [one for one in self._templates if len(one) <= len(samples)]
        if not templates:
            return 0.0
        size = fft.next_fast_len(len(samples) + len(templates[-1]), real=True)
        spectrum = fft.rfft(samples, size)
        sums = np.concatenate([[0.0], np.cumsum(samples)])
        squares = np.concatenate([[0.0], np.cumsum(samples**2)])
        return max(_highest(spectrum, size, one, (sums, squares)) for one in templates)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centered = values - values.mean()
    return np.asarray(centered / np.linalg.norm(centered))


def _highest(
    spectrum: NDArray[Any],
    size: int,
    template: NDArray[np.float64],
    cumulated: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> float:
    """The highest correlation of one template."""
    count = len(template)
    windows = len(cumulated[0]) - count
    products = fft.irfft(spectrum * np.conj(fft.rfft(template, size)), size)[:windows]
    sums, squares = (values[count:] - values[:-count] for values in cumulated)
    variance = squares - sums**2 / count
    # Windows of nearly one value hold no picture, and rounding would decide.
    usable = variance > 1e-6 * max(float(squares.max()), 1.0)
    if not usable.any():
        return 0.0
    return float((products[usable] / np.sqrt(variance[usable])).max())


def _samples(data: bytes, kind: str) -> NDArray[np.float64]:
    if kind == "u1":
        return np.frombuffer(data, np.uint8).astype(float)
    whole = data[: len(data) // 2 * 2]
    if kind == "high bits":
        return (np.frombuffer(whole, "<u2") >> 12).astype(float)
    return np.frombuffer(whole, kind).astype(float)


def _views(files: list[bytes]) -> Iterator[bytes]:
    """The values of all elements joined, the files, and what can be inflated in them."""
    across: dict[str, list[bytes]] = defaultdict(list)
    across["preambles"] = [file[:128] for file in files]
    for file in files:
        within: dict[str, list[bytes]] = defaultdict(list)
        for kind, place, value in _values(file):
            within[kind].append(value)
            across[place].append(value)
        for parts in within.values():
            yield b"".join(parts)
            yield from _inflated(b"".join(parts))
    for parts in across.values():
        yield b"".join(parts)
        yield from _inflated(b"".join(parts))
    for file in files:
        yield file
        yield from _inflated(file)
        yield from _interleaved(file)


def _interleaved(data: bytes) -> Iterator[bytes]:
    """Parts of equal size between headers of equal size, before the pixel data."""
    data = data[: data.rfind(b"\xe0\x7f\x10\x00")]
    if len(data) < _LONG_HEADER:
        return
    for stride, size in ((8, 2), (8, 4), (12, 2), (12, 4), (16, 4), (16, 8)):
        rows = np.frombuffer(data, np.uint8)[: len(data) // stride * stride].reshape(-1, stride)
        doubled = np.hstack([rows[:-1], rows[1:]])
        for start in range(0, stride, 2):
            yield doubled[:, start : start + size].tobytes()


def _inflated(data: bytes) -> Iterator[bytes]:
    for match in _DEFLATED.finditer(data):
        engine = zlib.decompressobj()
        try:
            found = engine.decompress(data[match.start() :], 1 << 20)
        except zlib.error:
            continue
        if len(found) >= WIDTHS[0] ** 2:
            yield found


def _values(file: bytes) -> Iterator[tuple[str, str, bytes]]:
    """All values but pixel data, with a kind to join them by and a place to join files by."""
    try:
        dataset = pydicom.dcmread(BytesIO(file))
    except Exception:  # noqa: BLE001 - a file that pydicom cannot read has no elements to join
        return
    for each in (dataset.file_meta, dataset):
        yield from _nested(each, "")
    yield "deflated data set", "deflated data set", _body(file, dataset)


def _body(file: bytes, dataset: Any) -> bytes:
    if dataset.file_meta.TransferSyntaxUID != pydicom.uid.DeflatedExplicitVRLittleEndian:
        return b""
    start = 128 + 4 + 12 + dataset.file_meta.FileMetaInformationGroupLength
    return zlib.decompress(file[start:], -zlib.MAX_WBITS)


def _nested(dataset: Any, path: str) -> Iterator[tuple[str, str, bytes]]:
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if int(tag) == 0x7FE00010 and not path:
            continue
        yield "tags", f"{path}tags", int(tag.elem).to_bytes(2, "little")
        for item in _items(dataset, tag, raw.VR):
            yield from _nested(item, f"{path}{tag}.")
        value = getattr(raw, "value", b"")
        if isinstance(value, bytes):
            yield f"{raw.VR} {len(value) > 64}", f"{path}{tag}", value


def _items(dataset: Any, tag: Any, vr: str | None) -> list[Any]:
    """The items of a sequence; none for other elements and those that pydicom does not know."""
    if vr not in {"SQ", None}:
        return []
    try:
        with warnings.catch_warnings(action="ignore"):
            element = dataset[tag]
    except (KeyError, ValueError, NotImplementedError):
        return []
    return list(element.value or ()) if element.VR == "SQ" else []
