"""What the network is made from is what the rules say."""

import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ctdeface_worker.imaging.nifti import read_nifti, write_nifti
from ctdeface_worker.phantom.scan import Scan, acquire
from ctdeface_worker.training import dataset, examples, held_out, plan
from ctdeface_worker.training.augment import varied
from ctdeface_worker.training.export import safetensors_bytes
from ctdeface_worker.training.labels import TRAINING_GRID_MM, Labeled, cleaned, on_grid
from tests.support.cases import small_head

TISSUE_HU = -300.0


def small_labeled() -> Labeled:
    """The small head on the training grid."""
    return on_grid(small_head().volume, small_head().face)


def test_thirty_six_coarse_volumes_and_three_heads_are_held_out() -> None:
    """The list has the size that the evaluation is promised, without repetition."""
    assert len(set(held_out.COARSE)) == 36
    assert len(set(held_out.HEADS)) == 3
    assert all(held_out.is_held_out(name) for name in (*held_out.COARSE, *held_out.HEADS))
    assert not held_out.is_held_out("pt_101")


def test_the_held_out_volumes_are_spread_over_the_names(real_data: Path) -> None:
    """They are the sorted names at positions where 36 i / 136 reaches a new integer."""
    names = sorted(
        file.name.removesuffix(".nii.gz") for file in (real_data / "openkbp").glob("*.nii.gz")
    )
    parts = [-1, *(36 * i // len(names) for i in range(len(names)))]
    assert (
        tuple(
            name
            for name, (before, here) in zip(names, pairwise(parts), strict=True)
            if before != here
        )
        == held_out.COARSE
    )


def test_volumes_that_are_held_out_are_not_even_read(tmp_path: Path) -> None:
    """A file by a held-out name yields no example, whatever it holds."""
    (tmp_path / f"{held_out.COARSE[0]}.nii.gz").write_bytes(b"nothing that could be read")
    assert list(examples.volumes(tmp_path, 1, 1)) == []


def test_a_volume_and_its_variants_are_labeled_by_the_geometric_segmenter(tmp_path: Path) -> None:
    """A file yields itself and its variants, but only if a face is in view."""
    write_nifti(small_head().volume, tmp_path / "one.nii.gz")
    made = list(examples.volumes(tmp_path, 1, 1))
    assert [example.name for example in made] == ["volume_one_1", "volume_one_0"]
    assert all(example.labeled.face.any() for example in made)
    assert {example.origin.partition(",")[0] for example in made} == {made[1].origin}
    assert list(examples.volumes(tmp_path, 1, 1, {"volume_one_0"})) == []
    crown = acquire(
        small_head(),
        Scan(spacing_mm=(3.0, 3.0, 3.0), low_mm=(-128.0, -136.0, 76.0)),
        np.random.default_rng(1),
    )
    assert examples.teacher_mask(crown.volume) is None


def test_the_label_is_the_face_and_the_air_just_before_it() -> None:
    """All facial tissue is labeled, and air within four voxels of it."""
    made = small_labeled()
    tissue = made.face & (made.volume.hu > TISSUE_HU)
    whole = on_grid(small_head().volume, np.ones_like(small_head().face))
    assert tissue.sum() > 5000
    assert tissue.sum() / made.face.sum() > 0.3
    far = np.ones_like(tissue)
    for z, y, x in np.argwhere(tissue)[::50]:
        far[max(z - 4, 0) : z + 5, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = False
    assert (made.face & far).sum() < 0.05 * made.face.sum()
    assert whole.face.sum() > 5 * made.face.sum()


def test_cleaning_drops_crumbs_and_keeps_the_face() -> None:
    """A crumb far from the face goes, the face itself hardly changes."""
    face = small_labeled().face
    dirty = face.copy()
    dirty[2:5, 2:5, 2:5] = True
    tidy = cleaned(dirty)
    assert not tidy[:6, :6, :6].any()
    assert 2 * (tidy & face).sum() / (tidy.sum() + face.sum()) > 0.95


def test_a_variant_is_another_volume_with_its_face() -> None:
    """Variants differ, stay on the grid, keep part of the face, and are reproducible."""
    made = [varied(small_labeled(), np.random.default_rng(seed)) for seed in (1, 2, 1)]
    assert np.array_equal(made[0].volume.hu, made[2].volume.hu)
    assert (
        not np.array_equal(made[0].face.shape, made[1].face.shape)
        or (made[0].face != made[1].face).any()
    )
    for one in made:
        assert one.volume.geometry.spacing_mm == pytest.approx((TRAINING_GRID_MM,) * 3)
        assert 0.3 < one.face.sum() / small_labeled().face.sum() < 2


def test_the_data_set_is_listed_with_digests_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Each case is written and listed once; a second run adds what is missing."""
    folders = dataset.Folders(root=tmp_path)
    first = list(dataset.write_raw(examples.phantoms([1]), folders))
    again = list(dataset.write_raw(examples.phantoms([1, 2]), folders))
    assert [entry.name for entry in (*first, *again)] == ["phantom_00001", "phantom_00002"]
    assert dataset.entries(folders) == (*first, *again)
    label = read_nifti(folders.raw / "labelsTr" / "phantom_00001.nii.gz")
    image = sitk.ReadImage(folders.raw / "imagesTr" / "phantom_00001_0000.nii.gz")
    assert set(np.unique(label.hu)) == {0.0, 1.0}
    assert int(label.hu.sum()) == first[0].face_voxels
    assert image.GetSpacing() == pytest.approx((TRAINING_GRID_MM,) * 3)
    dataset.describe(folders)
    assert json.loads((folders.raw / "dataset.json").read_text())["numTraining"] == 2


@pytest.mark.parametrize("flip", [1, -1])
def test_a_nifti_file_is_read_as_it_was_written(flip: int, tmp_path: Path) -> None:
    """Voxels lie where they lay, also where the file counts slices downward."""
    volume = small_head().volume
    write_nifti(volume, tmp_path / "head.nii.gz")
    image = sitk.ReadImage(tmp_path / "head.nii.gz")
    sitk.WriteImage(image[:, :, ::flip], tmp_path / "head.nii.gz")
    read = read_nifti(tmp_path / "head.nii.gz")
    assert read.geometry.affine_lps == pytest.approx(volume.geometry.affine_lps, abs=1e-4)
    assert np.abs(read.hu - volume.hu).max() < 0.6


def test_the_small_network_has_few_weights() -> None:
    """The plan's network stays below 10 MB."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    made = PlansManager(plan.plans("Dataset601_Face")).get_configuration(plan.CONFIGURATION)
    network = get_network_from_plans(
        made.network_arch_class_name,
        made.network_arch_init_kwargs,
        made.network_arch_init_kwargs_req_import,
        1,
        2,
        deep_supervision=False,
    )
    assert sum(parameter.numel() * 4 for parameter in network.parameters()) <= 10e6


def test_safetensors_hold_every_number() -> None:
    """Read by the format's definition: length, header, bytes."""
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([0.5], dtype=np.float32),
    }
    written = safetensors_bytes(arrays)
    (length,) = struct.unpack("<Q", written[:8])
    header = json.loads(written[8 : 8 + length])
    assert (8 + length) % 8 == 0
    for name, array in arrays.items():
        start, end = header[name]["data_offsets"]
        assert np.frombuffer(written[8 + length :][start:end], "<f4").reshape(
            header[name]["shape"]
        ) == pytest.approx(array)
