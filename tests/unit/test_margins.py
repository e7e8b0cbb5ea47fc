"""How close a check came to refusing: comparable between checks, and never on the wrong side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.margins import margin_of

FIGURES = st.floats(-2000, 2000)


@pytest.mark.parametrize(
    ("figure", "bound", "passed", "margin"),
    [
        (0.9925, 0.985, True, 0.5),
        (1.0, 0.985, True, 1.0),
        (0.985, 0.985, True, 0.0),
        (0.9, 0.985, False, -1.0),
        (0.01, 0.1, True, 0.9),
        (0.15, 0.1, False, -0.5),
        (20.0, 40.0, False, -0.5),
        (400.0, 40.0, True, 0.9),
        (-1000.0, -800.0, True, 0.25),
    ],
)
def test_a_margin_is_a_share_of_the_room_that_there_is(
    figure: float, bound: float, passed: bool, margin: float
) -> None:
    """What must be high, what must be low, shares, amounts and HU."""
    assert margin_of(Check(name="a", passed=passed, figure=figure, bound=bound)) == pytest.approx(
        margin
    )


@pytest.mark.parametrize(("figure", "bound"), [(None, 1.0), (1.0, None), (3.0, 0.0)])
def test_what_is_no_comparison_has_no_margin(figure: float | None, bound: float | None) -> None:
    """Neither has a count that must be 0."""
    assert margin_of(Check(name="a", passed=True, figure=figure, bound=bound)) is None


@given(FIGURES, FIGURES.filter(bool), st.booleans())
def test_the_sign_says_whether_the_check_passed_and_nothing_is_beyond_one(
    figure: float, bound: float, high: bool
) -> None:
    """For any figures."""
    passed = figure >= bound if high else figure <= bound
    margin = margin_of(Check(name="a", passed=passed, figure=figure, bound=bound))
    assert margin is not None
    assert 0 <= margin <= 1 if passed else -1 <= margin < 0
