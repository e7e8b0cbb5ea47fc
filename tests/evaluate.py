"""The evaluation of the issues: `ctdeface evaluate` with the figures of the tests' own measure (`tests/support/measure`) beside the gate's.

`make evaluate` runs it over the folder that CTDEFACE_REAL_DATA names (what no training reads), 300
phantoms of an unseen kind and 60 scans without a face. `tests` figures come from rays that share no
code with segmenters and gate.
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
    """Measure everything, or what the options of `ctdeface evaluate` say."""
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
    """Return the share of facial skin that is gone, seen from the front; nothing where no face is in view to measure by."""
    with np.errstate(
        invalid="ignore"
    ):  # beyond the border of a view there is no skin to compare with
        window = _window(wanted, before)
    skin = facial_skin(before, after, window, views=("front",)) if window else None
    return (
        {"tests_skin_removed": skin.removed, "tests_bright": skin.bright}
        if skin and skin.counted
        else {}
    )


def _window(wanted: Input, before: Volume) -> Window | None:
    """Where the face is: drawn there, written down by a person, or found by the nose."""
    match wanted.kind:
        case Kind.PHANTOM | Kind.UNSEEN:
            return window_of_scene(wanted.seed, unseen=wanted.kind is Kind.UNSEEN)
        case Kind.SYNTHETIC:
            return window_of_synthetic(wanted.seed)
        case _:
            return HEADS.get(wanted.name) or window_by_nose(before)


if __name__ == "__main__":
    sys.exit(main())
