"""Compare the time of the default with geometry alone and with CTA-DEFACE's network.

The first two are whole commands as a user runs them, then a case as a warm worker has it: the
    second of two in one command, by the
stages of its report. The last is the warm worker's other stages, plus tiles of 128 voxels each way
at the step that nnU-Net takes, half a tile without mirroring, times the seconds of one tile,
measured here: it would run for hours. Tiles are counted on the voxels of the case; the grid of the
published weights is known only to those who have them.

    .venv/bin/python -m tests.benchmarks.segmenters
        on the DICOM cases of CTDEFACE_REAL_DATA
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from tests.benchmarks.stages import Run, measure, real_cases
from tests.support.networks import network_of, tiny_plans

REPEATS = 2
PATCH = (128, 128, 128)
STEP = 0.5
SEGMENTER = "CTDEFACE_DEFACE__SEGMENTER"


def main() -> int:
    """Print a row for each case."""
    cases = [Path(name) for name in sys.argv[1:]] or real_cases()
    tile = tile_seconds()
    print(
        f"one tile of 128 x 128 x 128: {tile:.1f} s,"
        f" {os.environ.get('OMP_NUM_THREADS', 'all')} threads\n"
    )
    print(
        "| case | geometric: segment | whole | network: segment | whole | warm: segment | whole "
        "| official: tiles | segment | whole | times the network's whole | times the warm one |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        geometric, network = (
            [measured(case, segmenter) for _ in range(REPEATS)]
            for segmenter in ("geometric", "network")
        )
        segment, whole = seconds(network)
        if "segment" not in network[0].stages:
            print(
                f"| {case.name} ({network[0].outcome}) | | {seconds(geometric)[1]:.1f} | |"
                f" {whole:.1f} | | | | | | | |",
                flush=True,
            )
            continue
        warm = warmed(case).stages
        tiles = tiles_of(case)
        official = sum(warm.values()) - warm["segment"] + tiles * tile
        figures = (*seconds(geometric), segment, whole, warm["segment"], sum(warm.values()))
        print(
            f"| {case.name} ({network[0].outcome}) "
            f"| {' | '.join(f'{figure:.1f}' for figure in figures)} "
            f"| {tiles} | {tiles * tile:.0f} | {official:.0f} | {official / whole:.0f} "
            f"| {official / sum(warm.values()):.0f} |",
            flush=True,
        )
    return 0


def measured(case: Path, segmenter: str) -> Run:
    """Deface a case with a segmenter."""
    os.environ[SEGMENTER] = segmenter
    return measure(case)


def warmed(case: Path) -> Run:
    """Deface a case twice in one process; return the stages of the second run."""
    os.environ.pop(SEGMENTER, None)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("1", "2"):
            shutil.copytree(case, Path(folder, name))
        return measure(Path(folder))


def seconds(runs: list[Run]) -> tuple[float, float]:
    """Median seconds of the segmentation stage, with loading, and of the whole command."""
    return median(run.stages.get("segment", 0.0) for run in runs), median(
        run.seconds for run in runs
    )


def tile_seconds() -> float:
    """Seconds of one tile through CTA-DEFACE's architecture, once warm."""
    import torch

    from tests.benchmarks.networks import BIG

    network = network_of(tiny_plans(BIG)).eval()
    tile = torch.zeros((1, 1, *PATCH))
    taken = []
    with torch.inference_mode():
        for _ in range(REPEATS):
            begun = perf_counter()
            network(tile)
            taken.append(perf_counter() - begun)
    return median(taken)


def tiles_of(case: Path) -> int:
    """How many tiles nnU-Net's sliding window takes over the case's volume."""
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    from ctdeface_worker.evaluation.inputs import Input, Kind, load

    volume = load(Input(name=case.name, kind=Kind.CASE, path=case)).volume
    shape = tuple(max(length, side) for length, side in zip(volume.hu.shape, PATCH, strict=True))
    x, y, z = (len(steps) for steps in compute_steps_for_sliding_window(shape, PATCH, STEP))
    return x * y * z


if __name__ == "__main__":
    sys.exit(main())
