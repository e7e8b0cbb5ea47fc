"""Weights are read without executing them, and only nnU-Net's own layers are built."""

import json
import os
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.segmentation.models.files import model_files
from ctdeface_worker.training import export
from tests.support.networks import (
    network_of,
    tiny_model,
    tiny_plans,
    write_checkpoint,
    write_plans,
    write_safetensors,
)

TRAIN = """
import sys
from pathlib import Path
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from ctdeface_worker.training.plan import Size, dataset_json, plans

made = plans("Dataset601_Face", Size(patch=(16, 16, 16), features=(4, 8, 16)))
root = Path(sys.argv[1])
arrays = root / "Dataset601_Face" / "nnUNetPlans_3d_fullres"
arrays.mkdir(parents=True)
(arrays / "case.b2nd").touch()
trainer = nnUNetTrainer(made, "3d_fullres", 0, dataset_json(1), torch.device("cpu"))
trainer.initialize()
def batch():
    data = torch.randn(2, 1, 16, 16, 16)
    truth = (data > 0).float()
    return {"data": data, "target": [truth, truth[:, :, ::2, ::2, ::2]]}
trainer.on_epoch_start()
trainer.on_train_epoch_start()
trainer.on_train_epoch_end([trainer.train_step(batch()) for _ in range(2)])
with torch.no_grad():
    trainer.on_validation_epoch_start()
    trainer.on_validation_epoch_end([trainer.validation_step(batch())])
trainer.on_epoch_end()
trainer.save_checkpoint(str(root / "checkpoint_final.pth"))
"""
"""One epoch of two steps with nnU-Net's own trainer.

It runs in its own process, because nnU-Net reads its folders from the environment.
"""


class Program:
    """What a hostile checkpoint holds: something that runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        """Remember the file that it makes when it runs."""
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        """Run when unpickled."""
        return (os.system, (f"touch {self.mark}",))


def test_a_checkpoint_of_nnunets_own_trainer_is_read(tmp_path: Path) -> None:
    """Its numpy scalars are on the list; plan, mirrored axes and every tensor arrive."""
    import torch

    from ctdeface_worker.segmentation.nnunet.weights import read_weights

    environment = {
        **os.environ,
        **dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(tmp_path)),
        "nnUNet_compile": "f",
    }
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = read_weights(tmp_path / "checkpoint_final.pth")
    unsafe = torch.load(
        tmp_path / "checkpoint_final.pth", weights_only=False
    )  # our own file, of a moment ago
    assert isinstance(unsafe["_best_ema"], np.generic), (
        "the trainer wrote no numpy scalar: this test shows nothing"
    )
    assert read.configuration == "3d_fullres"
    assert read.tensors.keys() == unsafe["network_weights"].keys()
    assert all(
        torch.equal(read.tensors[name], tensor)
        for name, tensor in unsafe["network_weights"].items()
    )


def test_a_checkpoint_that_holds_a_program_is_refused_and_does_not_run_it(tmp_path: Path) -> None:
    """The file that the program would make is not there, and the error names what was found."""
    import torch

    from ctdeface_worker.segmentation.nnunet.weights import read_weights

    mark = tmp_path / "it ran"
    file = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "extra": Program(tmp_path / "it\\ ran")}, file)
    with pytest.raises(ConfigurationError, match=r"posix\.system.*only weights"):
        read_weights(file)
    assert not mark.exists()
    torch.load(
        file, weights_only=False
    )  # the program works: it was the reader that kept it from running
    assert mark.exists()


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut"]
)
@pytest.mark.parametrize("name", ["checkpoint_final.pth", "model.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """For either form the error names the file."""
    from ctdeface_worker.segmentation.nnunet.weights import read_weights

    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=name):
        read_weights(tmp_path / name)


def test_a_checkpoint_with_changed_bytes_is_refused_in_words(tmp_path: Path) -> None:
    """Damage makes the pickle reader fail in many ways; none is a traceback."""
    from ctdeface_worker.segmentation.nnunet.weights import read_weights

    file = write_checkpoint(tmp_path, network_of(tiny_plans()))
    whole, chance = file.read_bytes(), np.random.default_rng(1)
    begin = whole.index(b"network_weights") - 100
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in chance.integers(begin, begin + 2000, 5):
            damaged[place] = int(chance.integers(256))
        file.write_bytes(damaged)
        try:
            read_weights(file)
        except ConfigurationError as error:
            refused += str(file) in str(error)
    assert refused > 20


def test_axes_that_may_be_mirrored_stand_in_both_forms(tmp_path: Path) -> None:
    """Without them `:mirrored` would average nothing and not say so."""
    import torch

    from ctdeface_worker.segmentation.nnunet.network import load_network
    from ctdeface_worker.segmentation.nnunet.weights import read_weights

    network = network_of(tiny_plans())
    write_plans(tmp_path, tiny_plans())
    silent = write_safetensors(tmp_path / "model.safetensors", network)
    with pytest.raises(ConfigurationError, match="without `:mirrored`"):
        load_network(model_files(tmp_path), mirrored=True)
    assert load_network(model_files(tmp_path)).predictor.allowed_mirroring_axes is None
    silent.write_bytes(export.safetensors_of(network.state_dict()))
    read = read_weights(silent)
    assert read.mirrored_axes == (2,)
    assert all(
        torch.equal(tensor, read.tensors[name]) for name, tensor in network.state_dict().items()
    )
    assert load_network(model_files(tmp_path), mirrored=True).predictor.allowed_mirroring_axes == (
        2,
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"preprocessor_name": "MissingPreprocessor"}, "MissingPreprocessor"),
        ({"normalization_schemes": ["MissingNormalization"]}, "MissingNormalization"),
        ({"patch_size": [16, 16], "spacing": [3.0, 3.0]}, "3 are required"),
    ],
)
def test_plans_that_would_fail_with_the_first_scan_are_refused(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    """They install nowhere, where each case would fail."""
    from ctdeface_worker.segmentation.nnunet.network import load_network

    made = tiny_plans()
    write_checkpoint(tmp_path, network_of(made))
    made["configurations"]["3d_fullres"] |= change
    write_plans(tmp_path, made)
    with pytest.raises(ConfigurationError, match=why):
        load_network(model_files(tmp_path))


@pytest.mark.parametrize(
    ("described", "why"),
    [
        ({"labels": ["background", "face"]}, "no network can be built"),
        ({"channel_names": 1}, "no network can be built"),
        ({"labels": {"background": 0, "face": 5}}, "label 5"),
        ({"labels": {"background": 1, "face": 2}}, "no network can be built"),
    ],
)
def test_a_description_that_fits_no_network_is_refused(
    tmp_path: Path, described: dict[str, Any], why: str
) -> None:
    """The error is a sentence for any fault."""
    from ctdeface_worker.segmentation.nnunet.network import load_network

    made = tiny_plans()
    write_checkpoint(write_plans(tmp_path, made), network_of(made))
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | described))
    with pytest.raises(ConfigurationError, match=why):
        load_network(model_files(tmp_path))


def test_both_forms_of_the_same_weights_make_the_same_network(tmp_path: Path) -> None:
    """A checkpoint and a safetensors file of one network give equal parameters."""
    import torch

    from ctdeface_worker.segmentation.nnunet.network import load_network

    made = tiny_plans()
    network = network_of(made)
    write_checkpoint(write_plans(tmp_path / "pth", made), network)
    write_safetensors(write_plans(tmp_path / "safe", made) / "model.safetensors", network)
    one, other = (
        load_network(model_files(tmp_path / name)).predictor.network.state_dict()
        for name in ("pth", "safe")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


SYSTEM = "torch.nn.parallel.distributed.os.system"


@pytest.mark.parametrize("where", ["nonlin", "network_class_name"])
def test_plans_that_name_anything_but_a_layer_are_refused(tmp_path: Path, where: str) -> None:
    """A name within torch.nn that refers to the operating system is not called."""
    from ctdeface_worker.segmentation.nnunet.network import load_network

    assert callable(pydoc.locate(SYSTEM)), "the name leads nowhere: this test shows nothing"
    made = tiny_plans()
    architecture = made["configurations"]["3d_fullres"]["architecture"]
    write_checkpoint(tmp_path, network_of(made))
    mark = tmp_path / "it-ran"
    if where == "nonlin":
        architecture["arch_kwargs"] |= {
            "nonlin": SYSTEM,
            "nonlin_kwargs": {"command": f"touch {mark}"},
        }
    else:
        architecture[where] = SYSTEM
    write_plans(tmp_path, made)
    with pytest.raises(ConfigurationError, match="outside nnU-Net"):
        load_network(model_files(tmp_path))
    assert not mark.exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """Plans and weights that do not fit make an error, not a traceback."""
    from ctdeface_worker.segmentation.nnunet.network import load_network

    made = tiny_plans()
    write_checkpoint(tmp_path, network_of(made, classes=3))
    with pytest.raises(ConfigurationError, match="no network can be built"):
        load_network(model_files(write_plans(tmp_path, made)))


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (
            {"channel_names": {"0": "CT", "1": "MR"}, "labels": {"background": 0, "face": 1}},
            "2 images",
        ),
        (
            {"channel_names": {"0": "CT"}, "labels": {"background": 0, "nose": 1, "chin": 2}},
            "nose, chin",
        ),
        (
            {"channel_names": {"0": "CT"}, "labels": {"background": 0, "face": [1, 2], "skin": 1}},
            "face",
        ),
        ({}, "0 images"),
    ],
    ids=["two channels", "no face", "regions", "empty"],
)
def test_a_network_for_something_else_is_refused(dataset: dict[str, Any], why: str) -> None:
    """It must take one CT and know the face."""
    from ctdeface_worker.segmentation.nnunet.network import face_label

    with pytest.raises(ConfigurationError, match=why):
        face_label(dataset)


@pytest.mark.parametrize(
    ("labels", "label"),
    [({"background": 0, "skull": 1, "Face": 2}, 2), ({"background": 0, "deface": 1}, 1)],
)
def test_the_face_is_the_label_of_that_name_or_the_only_one(
    labels: dict[str, int], label: int
) -> None:
    """Case does not matter; a single label needs no name."""
    from ctdeface_worker.segmentation.nnunet.network import face_label

    assert face_label({"channel_names": {"0": "CT"}, "labels": labels}) == label


def test_the_threads_are_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After loading, torch uses OMP_NUM_THREADS, which the worker sets for its children."""
    import torch

    from ctdeface_worker.segmentation.nnunet.network import load_network

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    load_network(model_files(tiny_model(tmp_path)))
    try:
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
