"""`ctdeface evaluate` with the figures of `tests/support/measure` beside those of the gate.

`make evaluate` runs it on the held-out data of CTDEFACE_REAL_DATA, 300 phantoms of an unseen kind
and 60 scans without a face. The `tests` figures come from rays that share no code with segmenters
and gate.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctdeface_worker.commands import evaluate
from ctdeface_worker.evaluation.inputs import Input, Kind
from ctdeface_worker.imaging.domain import Volume
from tests.support.measure.heads import HEADS
from tests.support.measure.nose import window_by_nose
from tests.support.measure.phantoms import window_of_scene, window_of_synthetic
from tests.support.measure.skin import Window, facial_skin


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate with the options of `ctdeface evaluate`."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.evaluate",
        description=__doc__,
        epilog="DATA defaults to CTDEFACE_REAL_DATA.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file")
    evaluate.add_arguments(parser)
    chosen = parser.parse_args(arguments)
    if chosen.data is None and os.environ.get("CTDEFACE_REAL_DATA"):
        chosen.data = Path(os.environ["CTDEFACE_REAL_DATA"])
    return evaluate.evaluate(chosen, by_the_tests)


def by_the_tests(wanted: Input, before: Volume, after: Volume) -> dict[str, float]:
    """Return the share of facial skin that was removed, seen from the front.

    The result is empty if there is no face in view.
    """
    with np.errstate(invalid="ignore"):  # there is no skin beyond the border of a view
        window = _window(wanted, before)
    skin = facial_skin(before, after, window, views=("front",)) if window else None
    return (
        {"tests_skin_removed": skin.removed, "tests_bright": skin.bright}
        if skin and skin.counted
        else {}
    )


def _window(wanted: Input, before: Volume) -> Window | None:
    """Return the position of the face: known by construction, noted by hand, or by the nose."""
    match wanted.kind:
        case Kind.PHANTOM | Kind.UNSEEN:
            return window_of_scene(wanted.seed, unseen=wanted.kind is Kind.UNSEEN)
        case Kind.SYNTHETIC:
            return window_of_synthetic(wanted.seed)
        case _:
            return HEADS.get(wanted.name) or window_by_nose(before)


if __name__ == "__main__":
    sys.exit(main())
