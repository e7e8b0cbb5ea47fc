"""Write defaced instances, changing only the listed elements.

Native pixel data are replaced in place. Compressed pixel data are encoded losslessly in the same
transfer syntax, else written in Explicit VR Little Endian. Icons and overlays are blanked.
"""

import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pydicom
from pydicom.uid import JPEG2000, JPEG2000Lossless

from ctdeface_shared.jobs.options import HeaderPolicy
from ctdeface_worker.dicom.annotation import Change, annotate
from ctdeface_worker.dicom.elements import Element
from ctdeface_worker.dicom.eligibility import NO_POLICY, ElementPolicy
from ctdeface_worker.dicom.layout import PIXEL_DATA, Layout, parse
from ctdeface_worker.dicom.patches import (
    Bytes,
    Patch,
    apply,
    fragmented_element,
    native_element,
    replace_element,
    replace_value,
    to_explicit_little_endian,
)
from ctdeface_worker.dicom.pixels import NATIVE, WordArray, encode
from ctdeface_worker.dicom.volume import LoadedSeries
from ctdeface_worker.imaging.domain import DifferenceKind, ExpectedDifference, Instance

Written: TypeAlias = tuple[tuple[ExpectedDifference, ...], tuple[str, ...]]
"""Differences of a written file and the paths of its broken signatures."""

_SIGNATURES = frozenset({0xFFFAFFFA, 0x4FFE0001})
_REBUILT = frozenset({JPEG2000, JPEG2000Lossless})
"""Each code-block of these syntaxes may hold bytes that decoders skip."""
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """Rules for the headers of written instances.

    Attributes:
        policy: preserve or annotate.
        uids: old to new SOP and Series Instance UIDs of the whole case, from
            `annotation.new_uids`; only for annotate.
        elements: decisions of the data stewards about opaque elements.
    """

    policy: HeaderPolicy = HeaderPolicy.PRESERVE
    uids: Mapping[str, str]
    elements: ElementPolicy = NO_POLICY


PRESERVE = Headers(uids={})


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenInstance:
    """One written file.

    Attributes:
        file: posix path relative to the destination, the same as in the case.
        sop_instance_uid: of the input.
        slice_number: slice of the volume that the instance shows.
        differences: all differences from the input file, with reasons.
        broken_signatures: paths of digital signatures that no longer verify.
    """

    file: str
    sop_instance_uid: str
    slice_number: int
    differences: tuple[ExpectedDifference, ...]
    broken_signatures: tuple[str, ...] = ()


def write_series(
    loaded: LoadedSeries,
    edited: tuple[WordArray, ...],
    destination: Path,
    headers: Headers = PRESERVE,
) -> tuple[WrittenInstance, ...]:
    """Write every instance of a series, without fsync.

    Args:
        loaded: the series as read.
        edited: per instance the words to write, from `fill.fill_stored`.
        destination: folder of the case; must not contain these files yet.
        headers: preserve (default) or annotate.

    Returns:
        Per instance the complete list of expected differences.
    """
    rows = zip(loaded.series.instances, loaded.stored, edited, loaded.slice_of, strict=True)
    written = []
    # Warnings of pydicom quote header values, which may name the patient.
    with warnings.catch_warnings(action="ignore"):
        for instance, before, after, slice_number in rows:
            path = destination / instance.file
            differences, signatures = _write(instance, (before, after), path, headers)
            written.append(
                WrittenInstance(
                    file=instance.file,
                    sop_instance_uid=instance.sop_instance_uid,
                    slice_number=slice_number,
                    differences=differences,
                    broken_signatures=signatures,
                )
            )
    return tuple(written)


def _write(
    instance: Instance, words: tuple[WordArray, WordArray], path: Path, headers: Headers
) -> Written:
    """Write one instance.

    `words` are those before and after the edit.
    """
    layout = parse(instance.content)
    changes = [
        *_pixel_changes(layout, instance, *words),
        *_picture_changes(layout, headers.elements.blank | instance.blanked),
    ]
    if headers.policy is HeaderPolicy.ANNOTATE:
        header = pydicom.dcmread(BytesIO(instance.content), stop_before_pixels=True)
        changes += annotate(layout, header, headers.uids)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        if changes:
            stream.writelines(_pieces(layout, [patch for patch, _ in changes]))
        else:
            stream.write(instance.content)
    differences = dict.fromkeys(difference for _, listed in changes for difference in listed)
    signatures = (element.name for element in layout.elements if element.tag in _SIGNATURES)
    return tuple(differences), tuple(signatures) if changes else ()


def _pieces(layout: Layout, patches: list[Patch]) -> Iterator[Bytes]:
    pieces = apply(layout, patches)
    if not layout.deflated:
        yield from pieces
        return
    data = b"".join(pieces)
    body = layout.body + sum(patch.growth for patch in patches if patch.start < layout.body)
    yield data[:body]
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = engine.compress(data[body:]) + engine.flush()
    yield deflated + b"\0" * (len(deflated) % 2)


def _pixel_changes(
    layout: Layout, instance: Instance, before: WordArray, after: WordArray
) -> Iterator[Change]:
    element = layout.pixel_data
    same = after is before or np.array_equal(after, before)
    if element is None or (same and instance.transfer_syntax_uid not in _REBUILT):
        return
    reason = "encoded again without unused bytes" if same else "the face is replaced by air"
    face = _difference(element, reason)
    if instance.transfer_syntax_uid in NATIVE:
        words = after if layout.little_endian else after.byteswap()
        yield replace_value(element, memoryview(words.tobytes())), (face,)
        return
    value = encode(after, instance.pixels, instance.transfer_syntax_uid)
    if value is not None and fragmented_element(value) == layout.data[element.start : element.end]:
        return
    for tag in _OFFSET_TABLES:
        table = layout.top(tag)
        if table is not None:
            yield (
                replace_element(table, b""),
                (_difference(table, "offset table of the replaced frame", DifferenceKind.REMOVED),),
            )
    if value is not None:
        yield replace_element(element, fragmented_element(value)), (face,)
        return
    yield replace_element(element, native_element(after.tobytes())), (face,)
    syntax = to_explicit_little_endian(layout)
    if syntax is not None:
        reason = "no lossless encoder for the transfer syntax of the input"
        meta = [layout.top(0x00020010), *([layout.top(0x00020000)] if syntax.growth else [])]
        yield syntax, tuple(_difference(e, reason) for e in meta if e is not None)


def _picture_changes(layout: Layout, blanked: frozenset[str]) -> Iterator[Change]:
    """Blank icons, overlays and the named elements.

    Fragments cannot be zeroed: a compressed icon is removed together with its sequence, and an
    element that is in no sequence alone.
    """
    for element in layout.elements:
        named = element.tag_name in blanked and element.vr != "SQ"
        own_pixels = element.tag == PIXEL_DATA and not element.path
        if own_pixels or not (named or element.is_picture):
            continue
        if element.fragmented:
            removed = next(
                (e for e in layout.elements if element.path and _holds(e, element)), element
            )
            yield (
                replace_element(removed, b""),
                (_difference(removed, "may show the face, compressed", DifferenceKind.REMOVED),),
            )
        elif layout.data[element.value : element.end].strip(b"\0"):
            yield (
                replace_value(element, bytes(element.size)),
                (_difference(element, "may show the face"),),
            )


def _holds(sequence: Element, element: Element) -> bool:
    """Return whether a sequence holds an element directly."""
    return sequence.path == element.path[:-1] and sequence.tag == element.path[-1][0]


def _difference(
    element: Element, reason: str, kind: DifferenceKind = DifferenceKind.CHANGED
) -> ExpectedDifference:
    return ExpectedDifference(path=element.name, kind=kind, reason=reason)
