"""Checks of the gate and their sentences.

A sentence names what was found and what is required, bound and unit included. A failed check also
says where, as far as the gate knows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

Unit: TypeAlias = Callable[[float], str]
"""Writes a figure with its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check with its figure, its bound and its outcome.

    Attributes:
        name: stable key for reports and metrics.
        passed: False holds the series back.
        figure: the measured value, None if nothing could be measured.
        bound: the limit that the figure is compared with, None for a check without a limit.
        message: a sentence with what was found and what is required, units included.
    """

    name: str
    passed: bool
    figure: float | None = None
    bound: float | None = None
    message: str = ""

    def located(self, where: Callable[[], str]) -> Self:
        """Add the place of the fault to a failed check's message.

        Args:
            where: describes the place; called for a failed check only.
        """
        return self if self.passed else replace(self, message=f"{self.message} ({where()})")


def percent(share: float) -> str:
    """Write a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def fine_percent(share: float) -> str:
    """Write a share as a percentage with two decimals."""
    return f"{100 * share:.2f} %"


def milliliters(volume: float) -> str:
    """Write a volume in ml."""
    return f"{volume:.0f} ml"


def rays(count: float) -> str:
    """Write a number of rays."""
    return f"{count:.0f} rays"


def at_least(name: str, figure: float, bound: float, unit: Unit, found: str) -> Check:
    """Return a check with a lower bound.

    Args:
        name: of the check.
        figure: measured value.
        bound: smallest value that passes.
        unit: writes figure and bound.
        found: sentence about the figure, which replaces its `{}`.
    """
    passed = figure >= bound
    shown = unit(figure)
    if not passed and shown == unit(bound):
        shown = f"just under {shown}"
    return Check(
        name=name,
        passed=passed,
        figure=figure,
        bound=bound,
        message=f"{found.format(shown)}; at least {unit(bound)} {_verb(bound, unit)} required",
    )


def at_most(name: str, figure: float, bound: float, unit: Unit, found: str) -> Check:
    """Return a check with an upper bound; see `at_least`."""
    passed = figure <= bound
    shown = unit(figure)
    if not passed and shown == unit(bound):
        shown = f"just over {shown}"
    return Check(
        name=name,
        passed=passed,
        figure=figure,
        bound=bound,
        message=f"{found.format(shown)}; at most {unit(bound)} {_verb(bound, unit)} allowed",
    )


def none_left(name: str, count: int, found: str) -> Check:
    """Return a check that passes for a count of 0.

    Args:
        name: of the check.
        count: number of faults.
        found: sentence about the count, which replaces its `{}`.
    """
    return Check(
        name=name,
        passed=count == 0,
        figure=float(count),
        bound=0.0,
        message=f"{found.format(count)}; 0 are allowed",
    )


def _verb(bound: float, unit: Unit) -> str:
    return "are" if unit is rays and bound != 1 else "is"
