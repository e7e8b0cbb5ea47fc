"""Compare one written file with its input.

The announced differences and no others must exist, the face must be filled, and no other picture
may remain.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.imaging.domain import DifferenceKind, ExpectedDifference
from ctdeface_worker.verification.instances.differences import Difference, differences
from ctdeface_worker.verification.instances.elements import ParsedElement, ParsedFile, items, parse
from ctdeface_worker.verification.instances.pixels import NATIVE, ExpectedPixels, pixel_problems

_NESTED_PICTURES = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


def compare_files(
    before: Path, after: Path, pixels: ExpectedPixels, expected: Sequence[ExpectedDifference]
) -> tuple[str, ...]:
    """Compare a written file with its input.

    Args:
        before: the input file.
        after: the written file.
        pixels: the voxels that must be filled, and the fill.
        expected: every difference that must exist.

    Returns:
        Problems as sentences; none means proven.
    """
    with warnings.catch_warnings(action="ignore"):  # pydicom warns about both files alike
        try:
            was, now = parse(before), parse(after)
            found = differences(was, now)
            problems = [
                *_unannounced(found, expected),
                *_wrong_group_lengths(was, now),
                *_byte_differences(was, now, found, expected),
                *pixel_problems(was, now, pixels),
                *_remaining_pictures(now, now.elements, ""),
            ]
        except UnreadableInstance as error:
            problems = [str(error)]
        except RecursionError:
            problems = ["sequences are nested too deeply to be compared"]
    return tuple(f"{after.name}: {problem}" for problem in problems)


def _unannounced(
    found: Iterable[Difference], expected: Iterable[ExpectedDifference]
) -> Iterator[str]:
    """Yield differences that were announced or found, not both.

    Group lengths follow from the other differences and are checked on their own.
    """
    existing = {(one.path, one.kind) for one in found if not _is_group_length(one.path, one.kind)}
    wanted = {(one.path, one.kind) for one in expected if not _is_group_length(one.path, one.kind)}
    for path, kind in sorted(existing - wanted):
        yield f"{path} is {kind.value}, which was not announced"
    for path, kind in sorted(wanted - existing):
        yield f"{path} should be {kind.value} but is not"


def _is_group_length(path: str, kind: DifferenceKind) -> bool:
    return kind is DifferenceKind.CHANGED and "." not in path and path.endswith(",0000)")


def _wrong_group_lengths(before: ParsedFile, after: ParsedFile) -> Iterator[str]:
    """Yield group lengths that do not follow their groups.

    The group length of the input may have been wrong.
    """
    for element in after.elements:
        if element.tag & 0xFFFF or before.top(element.tag) is None:
            continue
        growth = after.number(element.tag) - before.number(element.tag)
        if growth != _group_size(after, element.tag) - _group_size(before, element.tag):
            yield f"the group length {element.name} does not follow its group"


def _group_size(file: ParsedFile, tag: int) -> int:
    return sum(
        element.end - element.start for element in file.elements if element.tag >> 16 == tag >> 16
    )


def _byte_differences(
    before: ParsedFile,
    after: ParsedFile,
    found: Sequence[Difference],
    expected: Sequence[ExpectedDifference],
) -> Iterator[str]:
    """Yield differences of the bytes around the elements.

    All of them are compared if every difference keeps its place in the file.
    """
    if _frame_of(before) != _frame_of(after):
        yield "the preamble or the bytes after the last element differ"
    if after.data[after.tail :].strip(b"\0"):
        yield "bytes other than zeros follow the last element"
    same_places = all(one.before == one.after is not None for one in found)
    if len(before.data) == len(after.data) and same_places:
        yield from _gap_differences(before, after, found)
    elif {before.syntax, after.syntax} <= NATIVE and all(_keeps_its_size(one) for one in expected):
        yield "the files differ in size or layout although only pictures should have changed"


def _frame_of(file: ParsedFile) -> tuple[bytes, bytes]:
    """Return the bytes before and after the elements."""
    return file.data[:132], file.data[file.tail :]


def _gap_differences(
    before: ParsedFile, after: ParsedFile, found: Sequence[Difference]
) -> Iterator[str]:
    """Yield differences of the bytes between the announced values."""
    at = 0
    for start, end in [
        *sorted(one.before for one in found if one.before),
        (len(before.data), len(before.data)),
    ]:
        if before.data[at:start] != after.data[at:start]:
            yield f"bytes differ between offsets {at} and {start}, outside the announced values"
        at = max(at, end)


def _keeps_its_size(difference: ExpectedDifference) -> bool:
    tag = difference.path.rpartition(".")[2]
    return difference.kind is DifferenceKind.CHANGED and tag.startswith(("(7FE0,", "(60"))


def _remaining_pictures(
    file: ParsedFile, elements: Iterable[ParsedElement], prefix: str
) -> Iterator[str]:
    """Yield overlays and nested images that are not blank."""
    for element in elements:
        overlay = element.tag & 0xFF01FFFF == 0x60003000
        picture = overlay or (prefix and element.tag in _NESTED_PICTURES)
        if picture and file.value(element).strip(b"\0"):
            yield f"{prefix}{element.name} still holds a picture"
        for number, item in enumerate(items(file.data, element) or ()):
            yield from _remaining_pictures(file, item, f"{prefix}{element.name}[{number}].")
