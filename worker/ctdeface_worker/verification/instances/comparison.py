"""Puts one written file beside its input: announced differences and no others, the face filled, no other picture left."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.imaging.domain import BoolArray, DifferenceKind, ExpectedDifference
from ctdeface_worker.verification.instances.differences import Difference, differences
from ctdeface_worker.verification.instances.elements import DicomFile, Element, items, read
from ctdeface_worker.verification.instances.pixels import NATIVE, pixel_problems

_NESTED_PICTURES = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


def compare(
    before: Path,
    after: Path,
    *,
    face_slice: BoolArray,
    fill_stored: int,
    padding: tuple[int, int] | None,
    expected: Sequence[ExpectedDifference],
) -> tuple[str, ...]:
    """Prove that a written file is its input with the face replaced by air and nothing else changed.

    Args:
        before: the input file.
        after: the written file.
        face_slice: what had to be removed from this slice, (row, column).
        fill_stored: the stored value that stands for air, sign included.
        padding: lowest and highest stored word that means "no measurement"; such voxels stay as
            they are.
        expected: every difference there has to be.

    Returns:
        Problems as sentences; none means proven.
    """
    with warnings.catch_warnings(action="ignore"):  # what pydicom finds odd is odd in both files
        try:
            was, now = read(before), read(after)
            found = differences(was, now)
            problems = [
                *_announced(found, expected),
                *_group_lengths(was, now),
                *_bytes(was, now, found, expected),
                *pixel_problems(was, now, face_slice, fill_stored, padding),
                *_pictures(now, now.elements, ""),
            ]
        except UnreadableInstance as error:
            problems = [str(error)]
        except RecursionError:
            problems = ["sequences are nested too deeply"]
    return tuple(f"{after.name}: {problem}" for problem in problems)


def _announced(
    found: Iterable[Difference], expected: Iterable[ExpectedDifference]
) -> Iterator[str]:
    """Compare found with expected differences; group lengths, which follow from the others, are proven by themselves."""
    is_there = {(one.path, one.kind) for one in found if not _is_group_length(one.path, one.kind)}
    wanted = {(one.path, one.kind) for one in expected if not _is_group_length(one.path, one.kind)}
    for path, kind in sorted(is_there - wanted):
        yield f"{path} is {kind.value}, which was not announced"
    for path, kind in sorted(wanted - is_there):
        yield f"{path} should be {kind.value} but is not"


def _is_group_length(path: str, kind: DifferenceKind) -> bool:
    return kind is DifferenceKind.CHANGED and "." not in path and path.endswith(",0000)")


def _group_lengths(before: DicomFile, after: DicomFile) -> Iterator[str]:
    """A group length must change by as many bytes as its group does, even where the input's was wrong."""
    for element in after.elements:
        if element.tag & 0xFFFF or before.top(element.tag) is None:
            continue
        growth = after.number(element.tag) - before.number(element.tag)
        if growth != _group_size(after, element.tag) - _group_size(before, element.tag):
            yield f"the group length {element.name} does not follow its group"


def _group_size(file: DicomFile, tag: int) -> int:
    return sum(
        element.end - element.start for element in file.elements if element.tag >> 16 == tag >> 16
    )


def _bytes(
    before: DicomFile,
    after: DicomFile,
    found: Sequence[Difference],
    expected: Sequence[ExpectedDifference],
) -> Iterator[str]:
    """Compare the bytes around the elements: all of them, where every difference keeps its place."""
    if (
        before.data[:132] != after.data[:132]
        or before.data[before.tail :] != after.data[after.tail :]
    ):
        yield "the preamble or the bytes behind the last element differ"
    if after.data[after.tail :].strip(b"\0"):
        yield "something stands behind the last element"
    if len(before.data) == len(after.data) and all(
        one.before == one.after is not None for one in found
    ):
        at = 0
        for start, end in [
            *sorted(one.before for one in found if one.before),
            (len(before.data), len(before.data)),
        ]:
            if before.data[at:start] != after.data[at:start]:
                yield f"bytes differ between offsets {at} and {start}, outside of every announced value"
            at = max(at, end)
    elif {before.syntax, after.syntax} <= NATIVE and all(_keeps_its_size(one) for one in expected):
        yield "the files differ in size or layout although only pictures should have changed"


def _keeps_its_size(difference: ExpectedDifference) -> bool:
    tag = difference.path.rpartition(".")[2]
    return difference.kind is DifferenceKind.CHANGED and tag.startswith(("(7FE0,", "(60"))


def _pictures(file: DicomFile, elements: Iterable[Element], prefix: str) -> Iterator[str]:
    """Name every overlay and every nested image that is not blank."""
    for element in elements:
        overlay = element.tag & 0xFF01FFFF == 0x60003000
        if (overlay or (prefix and element.tag in _NESTED_PICTURES)) and file.value(element).strip(
            b"\0"
        ):
            yield f"{prefix}{element.name} still holds a picture"
        for number, item in enumerate(items(file.data, element) or ()):
            yield from _pictures(file, item, f"{prefix}{element.name}[{number}].")
