"""A picture hidden anywhere in a series is in none of the released bytes.

`make hostile` hides it in 1 000 series.
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ctdeface_shared.errors import PermanentError
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import LoadedSeries, load
from ctdeface_worker.dicom.writer import write_series
from ctdeface_worker.imaging.domain import FaceMask
from ctdeface_worker.pipeline.fill import fill_stored, fill_stored_value
from ctdeface_worker.verification.instances import ExpectedPixels, compare_files
from tests.support.hostile import PLACES, face, hide
from tests.support.picture_search import FOUND, PictureSearch

COUNT = int(os.environ.get("CTDEFACE_TEST_HOSTILE_FILES", "22"))
FILL_HU = -1000.0


def released(source: Path, staged: Path) -> list[bytes]:
    """The bytes that would be released: every slice but the first is filled completely."""
    try:
        made = [
            path
            for series in select(read_case(source)).series
            for path in _written(load(series), source, staged)
        ]
    except PermanentError:
        return []
    return [path.read_bytes() for path in made]


def _written(loaded: LoadedSeries, source: Path, staged: Path) -> list[Path]:
    """Write and compare one series; nothing is released unless all files pass."""
    mask = np.ones(loaded.volume.geometry.shape, dtype=bool)
    mask[0] = False
    face_mask = FaceMask(face=mask, geometry=loaded.volume.geometry)
    written = write_series(loaded, fill_stored(loaded, face_mask, FILL_HU), staged)
    for instance, one in zip(loaded.series.instances, written, strict=True):
        expected = ExpectedPixels(
            face=mask[one.slice_number],
            fill_stored=fill_stored_value(instance.pixels, FILL_HU),
            padding=instance.pixels.padding,
        )
        if compare_files(source / one.file, staged / one.file, expected, one.differences):
            return []
    return [staged / one.file for one in written]


def test_no_hidden_picture_is_released(tmp_path: Path) -> None:
    """The search finds it in the series as dropped, and nowhere in what is released."""
    search = PictureSearch(face())
    outcomes: Counter[str] = Counter()
    for seed in range(COUNT):
        hidden = hide(seed)
        source, staged = tmp_path / f"{seed}", tmp_path / f"{seed}.out"
        source.mkdir()
        for name, content in hidden.files.items():
            (source / name).write_bytes(content)
        out = released(source, staged)
        outcomes["released" if out else "refused"] += 1
        assert search.best(out) < FOUND, (seed, hidden.place)
    print(dict(outcomes))
    assert outcomes["refused"] > COUNT // 2


@pytest.mark.parametrize("place", sorted(PLACES))
def test_the_search_finds_each_hidden_picture(place: str) -> None:
    """Otherwise the test above would show nothing."""
    search = PictureSearch(face())
    number = sorted(PLACES).index(place)
    assert search.best(hide(number).files.values()) >= FOUND
