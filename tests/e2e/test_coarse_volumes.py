"""A sample of the coarse real volumes, by the code of `make evaluate`, which measures all of them."""

import statistics
from pathlib import Path

from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from tests.measure.heads import HEADS
from tests.measure.volumes import load, names
from tests.trial import try_volume

SAMPLE = 12


def test_a_sample_of_coarse_volumes_is_released_without_facial_skin_and_with_the_whole_brain(real_data: Path) -> None:
    """Ten of twelve are released; where a nose is in view to measure by, no less than 98.5 % of the skin is gone, and no brain."""
    # of all 136 volumes 14 are refused; two of them are in this sample
    coarse = names(real_data)[len(HEADS) :]
    sample = coarse[:: len(coarse) // SAMPLE][:SAMPLE]
    segmenter = GeometricSegmenter()
    trials = [try_volume(name, load(real_data, name), segmenter, views=("front",)) for name in sample]
    released = [trial for trial in trials if trial.released]
    shares = [trial.removed for trial in released if trial.removed is not None]
    assert len(released) >= SAMPLE - 2
    assert len(shares) >= SAMPLE // 2
    assert min(shares) >= 0.985
    assert statistics.median(shares) >= 0.998
    assert sum(trial.overlap_voxels for trial in released) == 0
