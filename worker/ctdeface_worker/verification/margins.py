"""How close a check of the gate came to refusing, as a share that can be compared between checks."""

from ctdeface_worker.verification.check import Check


def margin_of(check: Check) -> float | None:
    """Return how far from its bound a check lies: positive when it passed, 0 at the bound, negative when it failed.

    The distance is a share of the room there is: up to 1 for a share that must be high, the bound's
        own size for what must be low.
    0.9925 of the face gone where 0.985 must be is 0.5; 1 % bone where 10 % may be is 0.9; 20 ml of
    brain where 40 must be is −0.5.

    Returns:
        −1 to 1; None for a check that is no comparison, or whose bound is 0, where no distance has
        a size.
    """
    if check.figure is None or not check.bound:
        return None
    must_be_high = (
        check.figure >= check.bound
    ) == check.passed  # it passed above its bound or failed below
    room = abs(check.bound)
    if must_be_high and 0 < check.bound < 1:
        room = 1 - check.bound
    elif must_be_high and check.passed:
        room = max(abs(check.figure), abs(check.bound))
    size = min(abs(check.figure - check.bound) / room, 1.0)
    return size if check.passed else -size
