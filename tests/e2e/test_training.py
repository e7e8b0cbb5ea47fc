"""`ctdeface train` makes a network that learns, resumes, and runs in stock nnU-Net."""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ctdeface_worker.segmentation.models.files import OUR_WEIGHTS
from ctdeface_worker.segmentation.models.store import SHIPPED_FOLDER
from ctdeface_worker.training.plan import Size
from tests.support.networks import network_of, tiny_plans

CTDEFACE = Path(sys.executable).with_name("ctdeface")
EPOCHS, ITERATIONS, PHANTOMS = 5, 40, 3
QUICKLY = ("--learning-rate", "0.1")
ENOUGH = 0.8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small training in two runs."""
    root = tmp_path_factory.mktemp("training") / "work"
    for stop in (["--stop-after", "1"], []):
        done = train(root, *stop)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def train(root: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the documented command with everything small."""
    sizes = ["--phantoms", str(PHANTOMS), "--epochs", str(EPOCHS), "--iterations", str(ITERATIONS)]
    command: list[str | Path] = [CTDEFACE, "train", root, "--small", *sizes, *QUICKLY, *more]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def losses(root: Path) -> list[float]:
    """Return the training losses that nnU-Net logged, over all runs."""
    logs = sorted(root.glob("results/*/*/fold_0/training_log_*.txt"))
    return [
        float(value) for log in logs for value in re.findall(r"train_loss (\S+)", log.read_text())
    ]


def test_the_loss_falls_over_two_runs(trained: Path) -> None:
    """Each epoch is trained once, and the last loss is far below the first."""
    found = losses(trained)
    assert len(found) == EPOCHS
    assert len(list(trained.glob("results/*/*/fold_0/training_log_*.txt"))) == 2
    assert found[-1] < found[0] - 0.3


def test_stock_nnunet_runs_the_model_and_it_has_learned_its_phantoms(trained: Path) -> None:
    """Stock nnUNetPredictor loads the folder; 200 batches reach a Dice above 0.8."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(trained / "model"), use_folds=(0,))
    assert predictor.trainer_name == "nnUNetTrainer"
    scores = []
    for label in sorted(trained.glob("raw/*/labelsTr/*.nii.gz")):
        image = sitk.ReadImage(
            str(label).replace("labelsTr", "imagesTr").replace(".nii.gz", "_0000.nii.gz")
        )
        hu = sitk.GetArrayFromImage(image)[None].astype(np.float32)
        found = (
            predictor.predict_single_npy_array(hu, {"spacing": list(image.GetSpacing())[::-1]}) > 0
        )
        truth = sitk.GetArrayFromImage(sitk.ReadImage(label)) > 0
        if truth.any():
            scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert np.mean(scores) > ENOUGH, scores


def test_the_exported_checkpoint_holds_plain_values_only(trained: Path) -> None:
    """It loads without executing pickled code and does not name the machine."""
    import torch

    checkpoint = torch.load(trained / "model/fold_0/checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert str(trained) not in json.dumps(checkpoint["init_args"])


def test_safetensors_hold_the_same_weights_once(trained: Path) -> None:
    """The file has each tensor of the checkpoint, by its name or by that in the metadata."""
    import torch

    weights = torch.load(trained / "model/fold_0/checkpoint_final.pth", weights_only=True)[
        "network_weights"
    ]
    written = (trained / "model/fold_0/weights.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", written[:8])
    header = json.loads(written[8 : 8 + length])
    same = header.pop("__metadata__")
    assert same.pop("mirrored_axes") == "2"
    assert set(weights) == set(header) | set(same)
    for name, tensor in weights.items():
        start, end = header[same.get(name, name)]["data_offsets"]
        assert np.array_equal(
            np.frombuffer(written[8 + length :][start:end], "<f4"), tensor.numpy().ravel()
        )
    assert len(written) < 1.1 * sum(
        end - start for start, end in (entry["data_offsets"] for entry in header.values())
    )


def test_the_record_lists_what_the_model_was_made_from(trained: Path) -> None:
    """Recipe, seeds, digests of data and of weights."""
    record = json.loads((trained / "model/training.json").read_text())
    assert record["epochs"] == EPOCHS
    assert record["recipe"]["seed"] == 1
    assert len(record["cases"]) == PHANTOMS
    assert all(re.fullmatch(r"[0-9a-f]{64}", case["image_sha256"]) for case in record["cases"])
    assert set(record["sha256"]) == {"checkpoint_final.pth", "weights.safetensors"}


def test_a_training_begins_with_the_weights_of_another(trained: Path, tmp_path: Path) -> None:
    """Its first epoch is about as good as their last, and the record has their digest."""
    root = tmp_path / "work"
    for part in ("raw", "preprocessed"):
        shutil.copytree(trained / part, root / part)
    weights = trained / "model/fold_0/weights.safetensors"
    done = train(root, "--begin-with", weights, "--learning-rate", "0.001", "--stop-after", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    (first,) = losses(root)
    assert first < losses(trained)[0] - 0.3
    record = json.loads((root / "model/training.json").read_text())
    assert record["recipe"]["began_with"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_wider_network_begins_with_the_output_of_the_narrow_one() -> None:
    """Outputs are equal but for rounding, and training changes the new channels as well."""
    import torch

    from ctdeface_worker.training.widen import widened

    narrow, wide = (
        network_of(tiny_plans(Size(features=features))) for features in ((4, 6, 8), (6, 6, 12))
    )
    before = widened(narrow.state_dict(), wide.state_dict())
    wide.load_state_dict(before)
    head = torch.rand(1, 1, 16, 16, 16)
    assert torch.allclose(narrow(head), wide(head), atol=1e-5)
    wide(head).square().sum().backward()
    torch.optim.SGD(wide.parameters(), lr=0.1).step()
    first, last = "encoder.stages.0.0.convs.0.conv.weight", "decoder.seg_layers.1.weight"
    assert not torch.equal(wide.state_dict()[last][:, 4:], before[last][:, 4:])
    wide(head).square().sum().backward()
    torch.optim.SGD(wide.parameters(), lr=0.1).step()
    assert not torch.equal(wide.state_dict()[first][4:], before[first][4:])


@pytest.mark.parametrize("features", [(4, 8), (4, 6, 7), (4, 6, 8, 8)])
def test_only_wider_networks_with_the_same_stages_take_weights(features: tuple[int, ...]) -> None:
    """Fewer channels, fewer stages, more stages."""
    from ctdeface_worker.training.widen import widened

    known, other = (network_of(tiny_plans(Size(features=each))) for each in ((4, 6, 8), features))
    with pytest.raises(ValueError, match=r"different layers|is not wider"):
        widened(known.state_dict(), other.state_dict())


def test_augmentation_leaves_hu_and_stretches_heads_along_each_axis() -> None:
    """Tissue keeps its HU, but for noise and borders; a cube becomes a box."""
    import torch

    from ctdeface_worker.training.trainer import FaceTrainer

    np.random.seed(1)  # noqa: NPY002  nnU-Net's generator
    torch.manual_seed(1)
    change = FaceTrainer.get_training_transforms(
        (48, 48, 48), (0.0, 0.0), None, (2,), do_dummy_2d_data_aug=False
    )
    image, label = torch.zeros(1, 64, 64, 64), torch.zeros(1, 64, 64, 64)
    image[:, 20:44, 20:44, 20:44] = 2.0
    label[:, 20:44, 20:44, 20:44] = 1.0
    edges = set()
    for _ in range(60):
        made = change(image=image.clone(), segmentation=label.clone())
        inside = made["segmentation"][0] > 0
        assert abs(float(made["image"][0][inside].median()) - 2.0) < 0.1
        edges.add(tuple(int(inside.any(dim=others).sum()) for others in ((1, 2), (0, 2), (0, 1))))
    assert any(len(set(box)) == 3 for box in edges)
    assert min(map(min, edges)) < 22
    assert max(map(max, edges)) > 26


def test_weights_that_do_not_fit_the_network_are_refused(tmp_path: Path) -> None:
    """Weights of a larger network, or a missing file, are refused before data are made."""
    larger = train(tmp_path / "work", "--begin-with", SHIPPED_FOLDER / OUR_WEIGHTS)
    missing = train(tmp_path / "work", "--begin-with", tmp_path / "no.safetensors")
    assert (larger.returncode, missing.returncode) == (78, 78)
    assert "do not fit this network" in " ".join(larger.stderr.split())
    assert "cannot read the weights" in missing.stderr
    assert not (tmp_path / "work").exists()


def test_a_later_run_must_use_the_same_recipe(trained: Path) -> None:
    """The error names the options that differ, and nothing is trained or exported."""
    before = (trained / "model/training.json").read_bytes()
    weights = trained / "model/fold_0/weights.safetensors"
    refused = train(trained, "--begin-with", weights, "--learning-rate", "0.001")
    assert refused.returncode == 78
    assert "differs in began_with, learning_rate" in " ".join(refused.stderr.split())
    assert (trained / "model/training.json").read_bytes() == before


def test_a_finished_training_with_more_epochs_resumes(trained: Path, tmp_path: Path) -> None:
    """Each run resumes where the last ended and exports, even after a truncated list of cases."""
    root = shutil.copytree(trained, tmp_path / "work")
    with (root / "raw/Dataset601_Face/cases.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"name": "phant')
    reached = []
    for stop in (["--stop-after", "1"], []):
        done = train(root, "--epochs", str(EPOCHS + 2), *stop)
        assert done.returncode == 0, done.stdout + done.stderr
        record = json.loads((root / "model/training.json").read_text())
        reached.append(record["epochs"])
        assert len(record["cases"]) == PHANTOMS
    assert reached == [EPOCHS + 1, EPOCHS + 2]
    assert len(losses(root)) == EPOCHS + 2
    assert not list(root.glob("results/*/*/fold_0/*.part"))


def test_layers_compute_in_bfloat16_and_weights_stay_float32() -> None:
    """This does not depend on whether the CPU supports bfloat16."""
    import torch

    from ctdeface_worker.training.trainer import in_bfloat16

    layer, inside = torch.nn.Conv3d(1, 2, 3), []
    layer.register_forward_hook(lambda _module, _data, seen: inside.append(seen.dtype))
    one = in_bfloat16(layer)(torch.ones(1, 1, 4, 4, 4))
    (first, _) = in_bfloat16(lambda data: [layer(data), layer(data)])(torch.ones(1, 1, 4, 4, 4))
    assert isinstance(one, torch.Tensor)
    (one + first).sum().backward()  # type: ignore[no-untyped-call]  # torch's own gap
    assert set(inside) == {torch.bfloat16}
    assert layer.weight.grad is not None
    assert {one.dtype, first.dtype, layer.weight.dtype, layer.weight.grad.dtype} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--phantoms", "0"], 78, "at least two"),
        (["--phantoms", "1"], 78, "at least two"),
        (["--volumes", "damaged", "--phantoms", "2"], 78, "damaged.nii.gz cannot be read as NIfTI"),
        (["--device", "cuda"], 78, "no CUDA device"),
        (["--seed", "0"], 2, "at least 1"),
    ],
)
def test_impossible_trainings_are_refused(
    tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    """The command reports the reason without a traceback, before it spends hours."""
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "damaged.nii.gz").write_bytes(b"no image")
    command: list[str | Path] = [CTDEFACE, "train", "work", "--small", *options]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.returncode == code


def test_training_without_data_is_refused(tmp_path: Path) -> None:
    """The error names the missing folder of volumes; the exit code is 78."""
    command: list[str | Path] = [
        CTDEFACE,
        "train",
        tmp_path / "work",
        "--volumes",
        tmp_path / "nowhere",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "is not a folder" in " ".join(done.stderr.split())
    assert not (tmp_path / "work").exists()
