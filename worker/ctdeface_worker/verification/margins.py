"""Margins of checks, comparable between checks."""

from ctdeface_worker.verification.check import Check


def margin_of(check: Check) -> float | None:
    """Return the relative distance of a check from its bound.

    The margin is positive for a passed check, 0 at the bound and negative for a failed check. The
    available range is the distance up to 1 for a share with a lower bound, and the bound's own size
    for a figure with an upper bound. Examples: 0.9925 of the face removed with a bound of 0.985 is
    0.5; 1 % of bone with a bound of 10 % is 0.9; 20 ml of brain with a bound of 40 ml is −0.5.

    Returns:
        −1 to 1; None for a check without a comparison, or with a bound of 0, where a share of the
        bound is undefined.
    """
    if check.figure is None or not check.bound:
        return None
    # a check with a lower bound passed above it or failed below it
    has_lower_bound = (check.figure >= check.bound) == check.passed
    available = abs(check.bound)
    if has_lower_bound and 0 < check.bound < 1:
        available = 1 - check.bound
    elif has_lower_bound and check.passed:
        available = max(abs(check.figure), abs(check.bound))
    size = min(abs(check.figure - check.bound) / available, 1.0)
    return size if check.passed else -size
