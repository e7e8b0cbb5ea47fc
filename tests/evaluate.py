"""Deface every real volume in memory and measure what came out: `make evaluate`, or `python -m tests.evaluate --help`.

Prints a line per volume and a summary. With `--out` each line is kept as JSON, and a second run goes on where the first one ended.
"""

import argparse
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ctdeface_worker.segmentation.choice import segmenter_named
from tests.measure.heads import HEADS
from tests.measure.volumes import load, names
from tests.trial import Trial, try_volume


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all volumes, or some, and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.evaluate", description=__doc__)
    parser.add_argument("names", nargs="*", help="volumes to measure (default: all)")
    parser.add_argument("--segmenter", default="geometric", help="what finds the face (default: geometric)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="measure every Nth volume only (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the results as JSON lines, and go on with them")
    chosen = parser.parse_args(arguments)
    root = os.environ.get("CTDEFACE_REAL_DATA")
    if not root:
        parser.error("CTDEFACE_REAL_DATA must name the folder of real volumes")
    wanted = tuple(chosen.names) or names(Path(root))[:: chosen.every]
    trials = list(_trials(Path(root), wanted, chosen.segmenter, chosen.out))
    print(summary(trials))
    return 0


def _trials(root: Path, wanted: Sequence[str], segmenter_name: str, out: Path | None) -> Iterator[Trial]:
    known = {trial.name: trial for trial in _kept(out)}
    segmenter = segmenter_named(segmenter_name)
    for number, name in enumerate(wanted, start=1):
        trial = known.get(name) or try_volume(name, load(root, name), segmenter)
        if out is not None and name not in known:
            with out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(trial)) + "\n")
        print(f"{number:3d}/{len(wanted)} {line(trial)}", flush=True)
        yield trial


def _kept(out: Path | None) -> Iterator[Trial]:
    if out is not None and out.exists():
        yield from (Trial(**json.loads(text)) for text in out.read_text(encoding="utf-8").splitlines())


def line(trial: Trial) -> str:
    """One volume for a person."""
    if not trial.released:
        return f"{trial.name:22s} refused, {trial.code}: {trial.reason}"
    if trial.removed is None:
        measured = "no nose in view: not measured"
    else:
        oblique = f"{trial.worst_oblique:8.2%}" if trial.worst_oblique is not None else "       -"
        measured = f"removed {trial.removed:8.2%} of {trial.counted:5d} rays, bright {trial.bright:5.1%}, worst oblique {oblique}"
    seconds = f"{trial.segment_seconds:.1f} + {trial.verify_seconds:.1f} s"
    return f"{trial.name:22s} released, {measured}, cavity {trial.cavity_ml:5.0f} ml, overlap {trial.overlap_voxels}, {seconds}"


def summary(trials: Iterable[Trial]) -> str:
    """Counts and figures of heads and coarse volumes apart."""
    every = list(trials)
    groups = {"heads": [t for t in every if t.name in HEADS], "coarse volumes": [t for t in every if t.name not in HEADS]}
    return "\n".join(_summary(title, group) for title, group in groups.items() if group)


def _summary(title: str, group: Sequence[Trial]) -> str:
    released = [trial for trial in group if trial.released]
    shares = sorted(trial.removed for trial in released if trial.removed is not None)
    refused = Counter(trial.code for trial in group if not trial.released)
    text = f"{title}: {len(released)} of {len(group)} released, refused {dict(refused) or 'none'}"
    text += f", {len(released) - len(shares)} released but left out of the measure (no nose in view)"
    if shares:
        below = sum(share < 0.985 for share in shares)
        text += f"; skin removed: median {statistics.median(shares):.2%}, least {shares[0]:.2%}, {below} below 98.5 %"
    return text + f"; voxels of the cavity in a mask: {sum(trial.overlap_voxels for trial in released)}"


if __name__ == "__main__":
    sys.exit(main())
