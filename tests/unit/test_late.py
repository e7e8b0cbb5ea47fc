"""The rule for late files of an earlier case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_watcher.inbox.late_files import is_late

NAMES = st.frozensets(st.sampled_from("abcdef"))


@pytest.mark.parametrize(
    ("drop", "base", "same", "expected"),
    [
        ("c", "ab", "", True),
        ("bc", "ab", "b", True),
        ("b", "ab", "b", True),
        ("bc", "ab", "", False),
        ("ab", "ab", "ab", False),
        ("abc", "ab", "ab", False),
        ("abc", "ab", "", False),
        ("c", "", "", False),
    ],
)
def test_a_drop_is_late_when_it_lacks_files_and_contradicts_none(
    drop: str, base: str, same: str, expected: bool
) -> None:
    """A whole case, or other content under a name of the earlier case, stands alone."""
    assert is_late(frozenset(drop), frozenset(base), lambda name: name in same) is expected


@given(drop=NAMES, base=NAMES, same=NAMES)
def test_what_is_late_never_contradicts_and_never_stands_for_the_whole_case(
    drop: frozenset[str], base: frozenset[str], same: frozenset[str]
) -> None:
    """These two conditions are necessary and sufficient."""
    assert is_late(drop, base, same.__contains__) is ((drop & base) <= same and bool(base - drop))
