"""List all different elements of two files, also nested ones."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ctdeface_worker.imaging.domain import DifferenceKind
from ctdeface_worker.verification.instances.elements import ParsedElement, ParsedFile, items

Range = tuple[int, int]


class Difference(NamedTuple):
    """One element that differs.

    Attributes:
        path: tags from the outside in, items counted from 0.
        kind: changed, removed or added.
        before: offsets of the value and of the byte after it in the input, None if it is missing.
        after: the same in the output.
    """

    path: str
    kind: DifferenceKind
    before: Range | None
    after: Range | None


def differences(before: ParsedFile, after: ParsedFile) -> list[Difference]:
    """Return every difference between the elements of two files.

    Raises:
        UnreadableInstance: a sequence is damaged.
    """
    if before.data == after.data:
        return []
    return list(_Pair(before, after).data_sets(before.elements, after.elements, ""))


class _Pair(NamedTuple):
    """The two compared files."""

    before: ParsedFile
    after: ParsedFile

    def data_sets(
        self, before: Sequence[ParsedElement], after: Sequence[ParsedElement], prefix: str
    ) -> Iterator[Difference]:
        """Yield the differences between two data sets or items."""
        was, now = (
            {element.tag: element for element in before},
            {element.tag: element for element in after},
        )
        if [tag for tag in was if tag in now] != [tag for tag in now if tag in was]:
            yield Difference(f"{prefix}order of elements", DifferenceKind.CHANGED, None, None)
        for tag, element in was.items():
            other = now.get(tag)
            if other is None:
                yield Difference(
                    prefix + element.name, DifferenceKind.REMOVED, _range(element), None
                )
            elif not self._same(element, other):
                yield from self._elements(element, other, prefix + element.name)
        for tag, element in now.items():
            if tag not in was:
                yield Difference(prefix + element.name, DifferenceKind.ADDED, None, _range(element))

    def _same(self, was: ParsedElement, now: ParsedElement) -> bool:
        """Return whether two elements are equal to the byte.

        Tag, value representation, length, value and delimiters are compared.
        """
        same_size = was.end - was.start == now.end - now.start
        return (
            same_size
            and was.encoding == now.encoding
            and self.after.data.startswith(self.before.data[was.start : was.end], now.start)
        )

    def _elements(self, was: ParsedElement, now: ParsedElement, path: str) -> Iterator[Difference]:
        """Yield the differences inside two elements."""
        old, new = items(self.before.data, was), items(self.after.data, now)
        found: list[Difference] = []
        if old is not None and new is not None:
            for number, (one, other) in enumerate(zip(old, new, strict=False)):
                found += self.data_sets(one, other, f"{path}[{number}].")
        if old is None or new is None or len(old) != len(new) or not found:
            yield Difference(path, DifferenceKind.CHANGED, _range(was), _range(now))
        yield from found


def _range(element: ParsedElement) -> Range:
    return element.value, element.end
