"""Writes defaced instances: the input's bytes with exactly the listed elements changed (DESIGN section 8, rules 5, 6 and 8)."""

import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom

from ctdeface_shared.jobs.options import HeaderPolicy
from ctdeface_worker.dicom.annotation import Change, annotate
from ctdeface_worker.dicom.elements import Element, tag_name
from ctdeface_worker.dicom.eligibility import (
    NO_POLICY,
    ElementPolicy,
    could_hold_a_picture,
    is_picture,
)
from ctdeface_worker.dicom.layout import Layout, parse
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

_SIGNATURES = frozenset({0xFFFAFFFA, 0x4FFE0001})
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """What happens to headers.

    Attributes:
        policy: preserve or annotate.
        uids: old to new SOP and Series Instance UIDs of the whole case, from `annotation.new_uids`;
            only for annotate.
        elements: what the data stewards decided about large opaque elements.
    """

    policy: HeaderPolicy = HeaderPolicy.PRESERVE
    uids: Mapping[str, str]
    elements: ElementPolicy = NO_POLICY


PRESERVE = Headers(uids={})


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenInstance:
    """One file written.

    Attributes:
        file: posix path relative to the destination, the same as in the case.
        sop_instance_uid: of the input.
        slice_number: slice of the volume that the instance shows.
        differences: everything that differs from the input file, and why.
        broken_signatures: digital signatures in the instance, which no longer verify.
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
    """Write every instance of a series below a folder under its own name, without fsync.

    Args:
        loaded: the series as read.
        edited: per instance the words to write, from `defacing.fill_stored`.
        destination: folder for the case; must not hold these files yet.
        headers: preserve (default) or annotate.

    Returns:
        Per instance the exact list of expected differences.
    """
    rows = zip(loaded.series.instances, loaded.stored, edited, loaded.slice_of, strict=True)
    with warnings.catch_warnings(
        action="ignore"
    ):  # they quote header values, which may name the patient
        return tuple(
            _write(instance, before, after, destination, headers, k)
            for instance, before, after, k in rows
        )


def _write(
    instance: Instance,
    before: WordArray,
    after: WordArray,
    destination: Path,
    headers: Headers,
    slice_number: int,
) -> WrittenInstance:
    layout = parse(instance.content)
    changes = [
        *_pixel_changes(layout, instance, before, after),
        *_picture_changes(layout, headers.elements),
    ]
    if headers.policy is HeaderPolicy.ANNOTATE:
        changes += annotate(
            layout,
            pydicom.dcmread(BytesIO(instance.content), stop_before_pixels=True),
            headers.uids,
        )
    path = destination / instance.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        stream.writelines(
            _pieces(layout, [patch for patch, _ in changes]) if changes else [instance.content]
        )
    differences = dict.fromkeys(difference for _, listed in changes for difference in listed)
    signatures = (
        tuple(element.name for element in layout.elements if element.tag in _SIGNATURES)
        if changes
        else ()
    )
    return WrittenInstance(
        file=instance.file,
        sop_instance_uid=instance.sop_instance_uid,
        slice_number=slice_number,
        differences=tuple(differences),
        broken_signatures=signatures,
    )


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
    if element is None or after is before or np.array_equal(after, before):
        return
    face = _difference(element, "the face is replaced by air")
    if instance.transfer_syntax_uid in NATIVE:
        words = after if layout.little_endian else after.byteswap()
        yield replace_value(element, memoryview(words.tobytes())), (face,)
        return
    for tag in _OFFSET_TABLES:
        table = layout.top(tag)
        if table is not None:
            yield (
                replace_element(table, b""),
                (_difference(table, "of the former compressed frame", DifferenceKind.REMOVED),),
            )
    value = encode(after, instance.pixels, instance.transfer_syntax_uid)
    if value is not None:
        yield replace_element(element, fragmented_element(value)), (face,)
        return
    yield replace_element(element, native_element(after.tobytes())), (face,)
    syntax = to_explicit_little_endian(layout)
    if syntax is not None:
        reason = "no lossless encoder for the input's transfer syntax"
        meta = [layout.top(0x00020010), *([layout.top(0x00020000)] if syntax.growth else [])]
        yield syntax, tuple(_difference(e, reason) for e in meta if e is not None)


def _picture_changes(layout: Layout, policy: ElementPolicy) -> Iterator[Change]:
    """Blank icons, overlays and what the policy names; compressed ones go with the sequence that holds them."""
    for element in layout.elements:
        blank = could_hold_a_picture(element) and tag_name(element.tag) in policy.blank
        if not blank and not is_picture(element):
            continue
        if element.fragmented and element.path:
            holder = next(
                e
                for e in layout.elements
                if e.path == element.path[:-1] and e.tag == element.path[-1][0]
            )
            yield (
                replace_element(holder, b""),
                (_difference(holder, "may show the face, compressed", DifferenceKind.REMOVED),),
            )
        elif layout.data[element.value : element.end].strip(b"\0"):
            yield (
                replace_value(element, bytes(element.size)),
                (_difference(element, "may show the face"),),
            )


def _difference(
    element: Element, reason: str, kind: DifferenceKind = DifferenceKind.CHANGED
) -> ExpectedDifference:
    return ExpectedDifference(path=element.name, kind=kind, reason=reason)
