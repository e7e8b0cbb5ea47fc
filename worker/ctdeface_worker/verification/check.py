"""One thing the gate looked at."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found and whether that is good enough.

    Attributes:
        name: stable, for reports and metrics.
        passed: False holds the series back.
        figure: what was measured, None where nothing could be.
        bound: what it is held against, None where the check is no comparison.
        message: a sentence for a person, units included.
    """

    name: str
    passed: bool
    figure: float | None = None
    bound: float | None = None
    message: str = ""
