"""A sample of the coarse real volumes, by the code of `make evaluate`, which measures all of them.

The suite tries every other of twelve that lie evenly among the 136; CTDEFACE_TEST_VOLUMES=12 tries
all twelve.
"""

import os
import statistics
from pathlib import Path

from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from tests.support.measure.heads import HEADS
from tests.support.measure.volumes import load, names
from tests.support.volume_results import deface_volume

EVENLY, SAMPLE = 12, int(os.environ.get("CTDEFACE_TEST_VOLUMES", "6"))
REFUSED = {"pt_131", "pt_201"}
"""Refused volumes of the sample; of all 136 volumes, 11 are refused."""


def test_a_sample_of_coarse_volumes_is_released_without_facial_skin_and_with_the_whole_brain(
    real_data: Path,
) -> None:
    """All but two are released; 98.5 % of the skin and no brain is removed."""
    coarse = names(real_data)[len(HEADS) :]
    every = EVENLY // SAMPLE
    sample = coarse[:: len(coarse) // EVENLY][:EVENLY][every - 1 :: every]
    segmenter = GeometricSegmenter()
    trials = [
        deface_volume(name, load(real_data, name), segmenter, views=("front",)) for name in sample
    ]
    released = [trial for trial in trials if trial.released]
    shares = [trial.removed for trial in released if trial.removed is not None]
    assert len(sample) == SAMPLE
    assert set(sample) > REFUSED
    assert {trial.name for trial in trials if not trial.released} <= REFUSED
    assert len(shares) >= SAMPLE // 2
    assert min(shares) >= 0.985
    assert statistics.median(shares) >= 0.998
    assert sum(trial.overlap_voxels for trial in released) == 0
