"""Real series load as they lie on the scanner."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ctdeface_shared.jobs.options import HIGHEST_FILL_HU, FillRule
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import Selection, select
from ctdeface_worker.dicom.volume import LoadedSeries, load
from ctdeface_worker.dicom.writer import write_series
from ctdeface_worker.imaging.domain import FaceMask
from ctdeface_worker.imaging.nifti import is_approximate
from ctdeface_worker.pipeline.fill import fill_stored, fill_value_hu


def selection(real_data: Path, case: str) -> Selection:
    """Read and select a case."""
    return select(read_case(real_data / case))


def only_series(real_data: Path, case: str) -> LoadedSeries:
    """Load the one series of a case of which nothing else is left over."""
    selected = selection(real_data, case)
    assert selected.others == ()
    return load(selected.series[0])


@pytest.mark.parametrize(
    ("case", "shape", "spacing_mm"),
    [
        ("visible_human_female", (234, 512, 512), (1.0, 1.0, 1.0)),
        ("stanford_cthead", (113, 256, 256), (2.0, 1.0, 1.0)),
        ("vtk_headsq", (93, 64, 64), (1.5, 3.2, 3.2)),
    ],
)
def test_plain_axial_series_keep_their_shape_and_spacing(
    real_data: Path, case: str, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    """Slices ascend with z, bone and air have their HU, and NIfTI is exact."""
    volume = only_series(real_data, case).volume
    assert volume.geometry.shape == shape
    assert volume.geometry.spacing_mm == pytest.approx(spacing_mm)
    assert np.all(np.diff(volume.geometry.slice_origins_lps[:, 2]) > 0)
    assert volume.hu.min() == -1024
    assert volume.hu.max() > 2000
    assert not is_approximate(volume.geometry)


def test_a_tilted_series_of_two_thicknesses_keeps_tilt_and_positions(real_data: Path) -> None:
    """Tilt of 18.5°, slices of 4 mm and 7 mm, padding of -1500 around the field of view."""
    volume = only_series(real_data, "dcm_qa_ct_ge").volume
    geometry = volume.geometry
    tilt = np.degrees(np.arccos(abs(geometry.normal_lps[2])))
    gaps = np.diff(geometry.slice_positions_mm)
    assert tilt == pytest.approx(18.5, abs=0.05)
    assert Counter(np.round(gaps).astype(int).tolist()) == {1: 1, 4: 13, 7: 13}
    assert set(np.unique(volume.hu[~volume.valid])) == {-1500}
    assert 0.7 < volume.valid.mean() < 0.8
    assert is_approximate(geometry)


def test_every_file_of_a_scanner_s_study_gets_its_fate(real_data: Path) -> None:
    """Localizer, captures and DICOMDIR are withheld; the volume has 28 slices."""
    selected = selection(real_data, "dcm_qa_ct_philips")
    assert [len(series.instances) for series in selected.series] == [28]
    assert Counter(other.code for other in selected.others) == {
        "DicomDir": 3,
        "Localizer": 1,
        "UnsupportedObject": 6,
    }


@pytest.mark.parametrize("case", ["vtk_headsq", "dcm_qa_ct_ge"])
def test_real_files_are_written_back_with_nothing_but_masked_pixels_changed(
    real_data: Path, tmp_path: Path, case: str
) -> None:
    """Only bytes of masked, valid voxels differ, and the fill is the scan's air."""
    loaded = only_series(real_data, case)
    face = np.zeros(loaded.volume.geometry.shape, dtype=bool)
    rows, columns = face.shape[1] // 4, face.shape[2] // 3
    face[2:-2, rows : 2 * rows, columns : 2 * columns] = True
    fill_hu = fill_value_hu(loaded.volume, FillRule())
    assert -1100 <= fill_hu <= HIGHEST_FILL_HU
    edited = fill_stored(loaded, FaceMask(face=face, geometry=loaded.volume.geometry), fill_hu)
    for written in write_series(loaded, edited, tmp_path):
        k = written.slice_number
        before = np.frombuffer((real_data / case / written.file).read_bytes(), dtype=np.uint8)
        after = np.frombuffer((tmp_path / written.file).read_bytes(), dtype=np.uint8)
        count = face[k].size * 2
        pixels = np.flatnonzero(before != after)
        if not pixels.size:
            continue
        assert after.size == before.size
        start = before.size - count  # in these files the pixel data come last
        voxels = np.unravel_index((pixels - start) // 2, face[k].shape)
        assert np.all(pixels >= start)
        assert np.all((face[k] & loaded.volume.valid[k])[voxels])
