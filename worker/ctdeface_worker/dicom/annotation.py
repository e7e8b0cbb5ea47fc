"""Mark defaced instances as derived, for `headers: annotate`.

The instances conform to DICOM PS3.3 C.7.6.1.1.2 (ImageType) and C.12.4.1 (derivation), and to
PS3.15 E.3.2 (Clean Recognizable Visual Features). PatientIdentityRemoved (0012,0062) is not set,
because the headers are not anonymized.
"""

import hashlib
import hmac
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Literal, TypeAlias

import pydicom
from pydicom import DataElement

from ctdeface_worker.dicom.elements import Element
from ctdeface_worker.dicom.layout import Layout
from ctdeface_worker.dicom.patches import (
    CharacterSets,
    Patch,
    append_item,
    encoded,
    insert_element,
    replace_element,
)
from ctdeface_worker.imaging.domain import DifferenceKind, ExpectedDifference, Series

IMAGE_TYPE = 0x00080008
DERIVATION_DESCRIPTION = 0x00082111
METHOD_CODES = 0x00120064
RECOGNIZABLE_FEATURES = 0x00280302
_LONGEST_ST = 1024
"""Characters of the VR ST (DICOM PS3.5 section 6.2)."""

Order: TypeAlias = Literal["little", "big"]
Change: TypeAlias = tuple[Patch, tuple[ExpectedDifference, ...]]


def new_uids(series: Iterable[Series], key: bytes) -> dict[str, str]:
    """Map SOP and Series Instance UIDs by keyed hash.

    The same key gives the same UIDs in every run.
    """
    old = {
        uid
        for one in series
        for uid in (
            one.series_instance_uid,
            *(instance.sop_instance_uid for instance in one.instances),
        )
    }
    return {uid: _keyed_uid(uid, key) for uid in old}


def annotate(layout: Layout, header: pydicom.Dataset, uids: Mapping[str, str]) -> Iterator[Change]:
    """Yield the changes that make an instance derived."""
    yield from _identities(layout, uids)
    given = header.get("ImageType") or ["ORIGINAL", "PRIMARY", "AXIAL"]
    image_type = ["DERIVED", *([given] if isinstance(given, str) else list(given))[1:]]
    yield from _set(layout, DataElement(IMAGE_TYPE, "CS", image_type), "a derived image")
    description = DataElement(DERIVATION_DESCRIPTION, "ST", _description(header))
    characters = header.get("SpecificCharacterSet")
    yield from _set(layout, description, "describes the removal", characters)
    yield from _method_code(layout, header)
    features = DataElement(RECOGNIZABLE_FEATURES, "CS", "NO")
    yield from _set(layout, features, "the facial features are removed")


def _keyed_uid(uid: str, key: bytes) -> str:
    digest = hmac.new(key, uid.encode("ascii", "replace"), hashlib.sha256).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def _identities(layout: Layout, uids: Mapping[str, str]) -> Iterator[Change]:
    for element in layout.elements:
        if element.vr != "UI":
            continue
        old = layout.data[element.value : element.end].rstrip(b"\0 ").decode("latin-1").split("\\")
        new = [uids.get(uid.strip(), uid) for uid in old]
        if new != old:
            patch = replace_element(element, _encoded_uid(layout, element, new))
            yield (
                patch,
                (
                    _changed(element.name, "new UID of a derived instance"),
                    *_group_length(layout, patch),
                ),
            )


def _encoded_uid(layout: Layout, element: Element, uids: list[str]) -> bytes:
    """Encode UIDs like the element that they replace.

    Inside a private sequence of unknown VR the encoding may differ from that of the data set.
    """
    value = "\\".join(uids).encode("ascii")
    value += b"\0" * (len(value) % 2)
    head = layout.data[element.start : element.value]
    order: Order = "little" if layout.little_endian or element.start < layout.body else "big"
    explicit = head[4:6] == b"UI"
    return (
        head[:6] + len(value).to_bytes(2, order) + value
        if explicit
        else head[:4] + len(value).to_bytes(4, order) + value
    )


def _set(
    layout: Layout, wanted: DataElement, reason: str, characters: CharacterSets = None
) -> Iterator[Change]:
    """Yield the change that sets a top-level element."""
    tag = int(wanted.tag)
    data = encoded(layout, pydicom.Dataset({wanted.tag: wanted}), characters=characters)
    element = layout.top(tag)
    if element is None:
        yield _with_length(
            layout,
            insert_element(layout, tag, data),
            _difference(tag, DifferenceKind.ADDED, reason),
        )
    elif layout.data[element.start : element.end] != data:
        yield _with_length(
            layout, replace_element(element, data), _difference(tag, DifferenceKind.CHANGED, reason)
        )


def _description(header: pydicom.Dataset) -> str:
    note = f"Facial features removed by ctdeface {version('ctdeface')}"
    before = str(header.get("DerivationDescription") or "")
    if before.endswith(note):
        return before
    return f"{before[: _LONGEST_ST - len(note) - 2]}; {note}" if before else note


def _method_code(layout: Layout, header: pydicom.Dataset) -> Iterator[Change]:
    sequence = layout.top(METHOD_CODES)
    if any(
        item.get("CodeValue") == "113102"
        for item in header.get("DeidentificationMethodCodeSequence") or ()
    ):
        return
    code = pydicom.Dataset()
    code.CodeValue = "113102"
    code.CodingSchemeDesignator = "DCM"
    code.CodeMeaning = "Clean Recognizable Visual Features Option"
    reason = "names the removal of facial features"
    if sequence is None:
        yield from _set_sequence(layout, code, reason)
        return
    content = encoded(layout, code)
    order: Order = "little" if layout.little_endian else "big"
    tag = b"".join(part.to_bytes(2, order) for part in (0xFFFE, 0xE000))
    item = tag + len(content).to_bytes(4, order) + content
    yield _with_length(
        layout,
        append_item(layout, sequence, item),
        _difference(METHOD_CODES, DifferenceKind.CHANGED, reason),
    )


def _set_sequence(layout: Layout, code: pydicom.Dataset, reason: str) -> Iterator[Change]:
    wanted = pydicom.Dataset()
    wanted.DeidentificationMethodCodeSequence = [code]
    patch = insert_element(layout, METHOD_CODES, encoded(layout, wanted))
    yield _with_length(layout, patch, _difference(METHOD_CODES, DifferenceKind.ADDED, reason))


def _with_length(layout: Layout, patch: Patch, difference: ExpectedDifference) -> Change:
    return patch, (difference, *_group_length(layout, patch))


def _group_length(layout: Layout, patch: Patch) -> tuple[ExpectedDifference, ...]:
    """Return the change of the retired group length."""
    element = layout.top(patch.group << 16)
    return (
        (_changed(element.name, "length of its group"),)
        if element is not None and patch.growth
        else ()
    )


def _difference(tag: int, kind: DifferenceKind, reason: str) -> ExpectedDifference:
    return ExpectedDifference(
        path=f"({tag >> 16:04X},{tag & 0xFFFF:04X})", kind=kind, reason=reason
    )


def _changed(path: str, reason: str) -> ExpectedDifference:
    return ExpectedDifference(path=path, kind=DifferenceKind.CHANGED, reason=reason)
