"""Networks in the pipeline agree with nnU-Net, and poor ones are corrected or refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctdeface_shared.commands.main import main
from ctdeface_shared.errors import FaceNotFound, SegmentersDisagree
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.canonical import mask_to_stored
from ctdeface_worker.imaging.domain import BoolArray, Geometry, Volume
from ctdeface_worker.phantom.head import Phantom
from ctdeface_worker.phantom.scenes import scene
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.segmentation.consensus import Verdict, decide
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.segmentation.models.files import model_files
from ctdeface_worker.segmentation.models.store import Model
from tests.support.cases import small_head, write_small_case
from tests.support.measure.wrong_masks import wrong_masks
from tests.support.networks import (
    COARSE,
    fitted_model,
    network_of,
    tiny_model,
    tiny_plans,
    write_checkpoint,
    write_plans,
)
from tests.support.runs import OPTIONS, run_case
from tests.support.volume_results import deface_volume


def model_of(folder: Path) -> Model:
    """A model that needs no store."""
    return Model(
        name="test", folder=folder, sha256=model_files(folder).digest(), origin="unverified"
    )


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """The coarse head."""
    return small_head()


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Model:
    """A network overfitted to one head on a 6 mm grid: about right, not good enough."""
    return model_of(fitted_model(tmp_path_factory.mktemp("poor"), phantom.volume, phantom.face))


def everywhere(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a box that holds everything."""
    del volume
    return np.full(3, -1e4), np.full(3, 1e4)


@pytest.mark.parametrize(
    ("transposed", "folds", "mirrored"),
    [([0, 1, 2], 1, False), ([2, 0, 1], 2, False), ([2, 0, 1], 1, True)],
    ids=["plain", "two folds transposed", "mirrored transposed"],
)
def test_a_network_of_others_gives_to_the_voxel_what_the_official_way_gives(
    tmp_path: Path, transposed: list[int], folds: int, mirrored: bool
) -> None:
    """Labels equal those of nnUNetPredictor, for several folds, transposed plans and mirroring."""
    import torch

    from ctdeface_worker.segmentation.nnunet.network import load_network, quiet
    from ctdeface_worker.segmentation.nnunet.prediction import stored_mask

    with quiet():
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    made = tiny_plans(ours=False) | {
        "transpose_forward": transposed,
        "transpose_backward": [int(n) for n in np.argsort(transposed)],
    }
    made["configurations"]["3d_fullres"]["spacing"] = [2.5, 1.5, 2.0]
    for fold in range(folds):
        network = network_of(made)
        with torch.no_grad():
            for tensor in network.parameters():
                tensor.add_(0.05 * fold * torch.randn(tensor.shape))
        write_checkpoint(write_plans(tmp_path, made), network, f"fold_{fold}/checkpoint_final.pth")
    volume = cube((30, 44, 52))
    with quiet():
        official = nnUNetPredictor(
            use_mirroring=mirrored,
            device=torch.device("cpu"),
            perform_everything_on_device=False,
            allow_tqdm=False,
        )
        official.initialize_from_trained_model_folder(str(tmp_path), use_folds=tuple(range(folds)))
        labels = official.predict_single_npy_array(
            volume.hu[None], {"spacing": list(volume.geometry.spacing_mm)}
        )
    found = stored_mask(
        load_network(model_files(tmp_path), mirrored=mirrored), volume, everywhere(volume)
    )
    assert 0.02 < found.mean() < 0.98
    assert (found == (labels == 1)).all()


def cube(shape: tuple[int, int, int]) -> Volume:
    """Blobs of tissue in air, axial slices, 3 x 2 x 1.5 mm."""
    from scipy import ndimage

    noise = np.random.default_rng(0).normal(size=shape)
    hu = (ndimage.gaussian_filter(noise, 3) * 20_000 - 300).astype(np.float32)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 3.0, 2.0, 1.5, 1.0
    return Volume(
        hu=hu, valid=np.ones(shape, dtype=bool), geometry=Geometry.from_affine(shape, affine)
    )


@pytest.mark.parametrize(
    ("axes", "flips"),
    [((1, 0, 2), (1,)), ((2, 1, 0), (0,)), ((0, 2, 1), (2,))],
    ids=["coronal", "sagittal", "turned"],
)
def test_slices_of_another_direction_are_shown_to_the_network_upright(
    tmp_path: Path, axes: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    """Coronal, sagittal or rotated storage of a scan gives the same mask."""
    from ctdeface_worker.segmentation.nnunet.network import load_network
    from ctdeface_worker.segmentation.nnunet.prediction import stored_mask

    network = load_network(model_files(tiny_model(tmp_path, ours=False)))
    volume = cube((30, 32, 40))
    turned = stored_differently(volume, axes, flips)
    expected = stored_mask(network, volume, everywhere(volume))
    found = stored_mask(network, turned, everywhere(turned))
    assert (np.flip(found, flips).transpose(np.argsort(axes)) == expected).all()


def stored_differently(
    volume: Volume, axes: tuple[int, int, int], flips: tuple[int, ...]
) -> Volume:
    """The same voxels at the same places, stored in other slices."""
    steps = volume.geometry.affine_lps[:3, :3][:, axes].copy()
    hu = np.flip(volume.hu.transpose(axes), flips).copy()
    origin = volume.geometry.affine_lps[:3, 3].copy()
    for axis in flips:
        origin += steps[:, axis] * (hu.shape[axis] - 1)
        steps[:, axis] *= -1
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    return Volume(
        hu=hu, valid=np.ones(hu.shape, dtype=bool), geometry=Geometry.from_affine(hu.shape, affine)
    )


def test_only_the_part_where_a_head_can_be_is_looked_at(tmp_path: Path) -> None:
    """In a long scan nothing is marked outside the box, extended to one tile."""
    from ctdeface_worker.segmentation.nnunet.network import load_network
    from ctdeface_worker.segmentation.nnunet.prediction import stored_mask

    network = load_network(model_files(tiny_model(tmp_path, ours=False)))
    volume = cube((200, 32, 32))
    near = (np.array([-1e4, -1e4, 400.0]), np.array([1e4, 1e4, 480.0]))
    found = stored_mask(network, volume, near)
    touched = np.flatnonzero(found.any(axis=(1, 2)))
    assert touched[0] >= 400 / 3 - 4
    assert touched[-1] <= 480 / 3 + 4


def test_a_poor_network_by_itself_is_refused_by_the_gate(phantom: Phantom, poor: Model) -> None:
    """The gate knows nothing of networks and sees that bone is taken."""
    from ctdeface_worker.segmentation.nnunet.segmenter import NnunetSegmenter

    trial = deface_volume("poor", phantom.volume, NnunetSegmenter("nnunet:poor", poor))
    assert trial.code == "VerificationFailed"
    assert "of the removed tissue is bone" in trial.reason


def test_a_network_that_knows_no_chin_is_refused_by_the_gate(
    tmp_path: Path, phantom: Phantom
) -> None:
    """It learned the same head without the lower third of its face: skin is left."""
    from ctdeface_worker.segmentation.nnunet.segmenter import NnunetSegmenter

    upper, levels = phantom.face.copy(), np.flatnonzero(phantom.face.any(axis=(1, 2)))
    upper[: levels[levels.size // 3]] = False
    model = model_of(fitted_model(tmp_path, phantom.volume, upper))
    trial = deface_volume("no chin", phantom.volume, NnunetSegmenter("nnunet:test", model))
    assert trial.code == "VerificationFailed"
    assert "of the facial skin in view is gone" in trial.reason


def test_the_same_network_with_geometry_over_it_is_repaired_and_released(
    tmp_path: Path, poor: Model
) -> None:
    """A released DICOM case, whose report names network, digest and origin."""
    from ctdeface_worker.segmentation.nnunet.segmenter import GuidedSegmenter

    segmenter = GuidedSegmenter("network", poor)
    case = tmp_path / "case"
    write_small_case(case)
    result = run_case(case, tmp_path / "work", OPTIONS, segmenter).result
    assert result.released, result.reason
    assert (result.segmenter, result.model_digest, result.model_origin) == (
        "network",
        poor.sha256,
        "unverified",
    )


def test_in_thick_slices_the_skin_between_them_is_gone_as_well() -> None:
    """The shipped network leaves gray bone in slices of 5.4 mm, which rays meet as skin."""
    trial = deface_volume(
        "thick", scene(6072, unseen=True, clinical=True).volume, segmenter_named("network")
    )
    assert (trial.code, trial.reason) == ("", "")


def test_an_installed_network_runs_in_the_warm_child_of_the_command(
    tmp_path: Path, poor: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the profile bulky even a poor network is released, and the report names it."""
    monkeypatch.setenv("CTDEFACE_MODELS__FOLDER", str(tmp_path / "models"))
    monkeypatch.setenv("CTDEFACE_DEFACE__SEGMENTER", "nnunet:poor")
    assert main(["model", "install", "poor", "--from", str(poor.folder)]) == 0
    write_small_case(tmp_path / "in" / "case")
    assert (
        main(
            [
                "deface",
                "-i",
                str(tmp_path / "in"),
                "-o",
                str(tmp_path / "out"),
                "--profile",
                "bulky",
            ]
        )
        == 0
    )
    (report,) = (
        json.loads(file.read_text())
        for file in tmp_path.glob("out.ctdeface/reports/case/*/report.json")
    )
    assert [report["result"][key] for key in ("segmenter", "model_digest", "model_origin")] == [
        "nnunet:poor",
        poor.sha256,
        "unverified",
    ]


def test_wrong_proposals_are_repaired_or_refused_and_never_taken_as_they_are(
    phantom: Phantom, poor: Model
) -> None:
    """For each deliberately wrong proposal the mask includes the geometric one, or is refused."""
    from ctdeface_worker.segmentation.nnunet.segmenter import GuidedSegmenter, combine

    found = GuidedSegmenter("network", poor).combined(phantom.volume)
    pair, grid = found.pair, found.head.canonical
    right = Volume(hu=grid.hu.copy(), valid=grid.valid.copy(), geometry=upright(grid.hu.shape))
    verdicts: dict[str, str] = {}
    for name, mask in wrong_masks(right, pair.geometric):
        try:
            made = combine(found.head, mask)
        except SegmentersDisagree:
            verdicts[name] = "refused"
            continue
        verdicts[name] = made.decision.verdict
        assert not (made.pair.geometric & ~made.decision.mask).any(), name
        assert not (made.decision.mask & ~(made.pair.reach | made.pair.geometric)).any(), name
    assert set(verdicts.values()) == {"refused", Verdict.REPAIRED}
    assert {name for name, verdict in verdicts.items() if verdict == "refused"} >= {
        "empty",
        "everything",
        "mirrored front to back",
    }
    assert decide(replace(pair, network=pair.geometric)).verdict is Verdict.AGREED


def test_a_network_corrects_the_direction_of_a_face_by_more_than_a_small_angle(
    phantom: Phantom, poor: Model
) -> None:
    """Twenty degrees are corrected, five are not, and a mask beside the head is ignored."""
    from ctdeface_worker.segmentation.geometric import mask as masks
    from ctdeface_worker.segmentation.nnunet.segmenter import GuidedSegmenter

    found = GuidedSegmenter("network", poor).combined(phantom.volume)
    body, right = found.pair.body, found.face
    seen = found.pair.geometric & body
    wrong = replace(right, yaw_degrees=right.yaw_degrees + 20)
    assert abs(masks.turned_toward(wrong, seen, 2.0).yaw_degrees - right.yaw_degrees) < 5
    small = replace(right, yaw_degrees=right.yaw_degrees + 5)
    assert masks.turned_toward(small, seen, 2.0) is small
    beside = body & (np.arange(body.shape[2]) > right.cylinder.axis.x + 15)
    assert masks.turned_toward(right, beside, 2.0) is right
    assert masks.turned_toward(right, np.zeros_like(body), 2.0) is right


def upright(shape: tuple[int, ...]) -> Geometry:
    """Geometry of the canonical grid."""
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = 2.0
    affine[3, 3] = 1.0
    return Geometry.from_affine((shape[0], shape[1], shape[2]), affine)


def test_bulky_and_ears_add_what_the_geometric_rules_take(phantom: Phantom, poor: Model) -> None:
    """Both ways of using a network: all of the geometric mask of that profile is in the mask."""
    from ctdeface_worker.segmentation.nnunet.segmenter import GuidedSegmenter, NnunetSegmenter

    wanted = GeometricSegmenter().segment(phantom.volume, profile=Profile.BULKY, ears=True).face
    for segmenter in (NnunetSegmenter("nnunet:poor", poor), GuidedSegmenter("network", poor)):
        mask: BoolArray = segmenter.segment(phantom.volume, profile=Profile.BULKY, ears=True).face
        assert not (wanted & ~mask).any()
        assert mask.sum() >= wanted.sum()


def test_a_network_that_finds_nothing_makes_no_mask(tmp_path: Path, phantom: Phantom) -> None:
    """Alone it finds no face; with the geometric rules the two disagree."""
    import torch

    from ctdeface_worker.segmentation.nnunet.segmenter import GuidedSegmenter, NnunetSegmenter

    made = tiny_plans(COARSE)
    network = network_of(made)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if "seg_layers" in name:
                tensor.zero_()
                if name.endswith("bias"):
                    tensor[0] = 9.0
    write_checkpoint(write_plans(tmp_path, made), network)
    with pytest.raises(FaceNotFound, match="the network finds no face"):
        NnunetSegmenter("nnunet:blind", model_of(tmp_path)).segment(phantom.volume)
    with pytest.raises(SegmentersDisagree, match="finds no face where"):
        GuidedSegmenter("network", model_of(tmp_path)).segment(phantom.volume)


def test_a_network_is_loaded_once_for_many_cases(
    phantom: Phantom, poor: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second case finds it ready, even if the files are gone by then."""
    from ctdeface_worker.segmentation.nnunet.segmenter import NnunetSegmenter

    segmenter = NnunetSegmenter("nnunet:poor", poor)
    first = segmenter.segment(phantom.volume).face
    monkeypatch.setattr(Model, "verified_files", lambda _: pytest.fail("the files were read again"))
    assert (segmenter.segment(phantom.volume).face == first).all()


def test_the_canonical_mask_follows_the_probabilities_between_the_voxels(
    phantom: Phantom, poor: Model
) -> None:
    """The border of a coarse network's mask is interpolated between its voxels."""
    from ctdeface_worker.segmentation.geometric.head import face_bounds_lps, find_head
    from ctdeface_worker.segmentation.nnunet.network import load_network
    from ctdeface_worker.segmentation.nnunet.prediction import canonical_probability

    field, grid = canonical_probability(
        load_network(poor.files()), phantom.volume, face_bounds_lps(find_head(phantom.volume))
    )
    assert ((field > 0.05) & (field < 0.95)).any()
    hard = mask_to_stored(field >= 0.5, grid, phantom.volume.geometry)
    from ctdeface_worker.imaging.canonical import field_to_stored

    soft = field_to_stored(field, grid, phantom.volume.geometry)
    assert 0 < (soft ^ hard).sum() < 0.1 * soft.sum()
