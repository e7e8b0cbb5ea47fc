"""Small nnU-Net model folders for the tests, made on the spot with weights by hand or by chance."""

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctdeface_worker.imaging.domain import BoolArray, Volume
from ctdeface_worker.training.export import safetensors_bytes
from ctdeface_worker.training.labels import TRAINING_GRID_MM, on_grid
from ctdeface_worker.training.plan import CONFIGURATION, Size, dataset_json, plans

if TYPE_CHECKING:
    import torch

TINY = Size(patch=(32, 32, 32), features=(4, 8))
COARSE = Size(grid_mm=6.0, patch=(40, 40, 32), features=(8, 16, 16))


def tiny_plans(size: Size = TINY, *, ours: bool = True) -> dict[str, Any]:
    """Return plans as `ctdeface train` writes them, or as somebody else would."""
    made = deepcopy(plans("Dataset601_Face", size))
    if not ours:
        made["experiment_planner_used"] = "ExperimentPlanner"
    return made


def network_of(made: dict[str, Any], classes: int = 2) -> "torch.nn.Module":
    """Build the network of plans with weights by chance, always the same."""
    import torch

    from ctdeface_worker.segmentation.nnunet.network import quiet

    with quiet():
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        architecture = made["configurations"][CONFIGURATION]["architecture"]
        torch.manual_seed(0)
        return get_network_from_plans(  # type: ignore[no-any-return]  # nnU-Net ships no types
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            classes,
            deep_supervision=False,
        )


def write_plans(folder: Path, made: dict[str, Any]) -> Path:
    """Write plans and description of the data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(made), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset_json(1)), encoding="utf-8")
    return folder


def write_checkpoint(
    folder: Path,
    network: "torch.nn.Module",
    name: str = "fold_0/checkpoint_final.pth",
    **more: object,
) -> Path:
    """Write weights in the form of nnU-Net's checkpoints."""
    import torch

    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "network_weights": network.state_dict(),
        "init_args": {"configuration": CONFIGURATION},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (2,),
        **more,
    }
    torch.save(content, file)
    return file


def write_safetensors(file: Path, network: "torch.nn.Module") -> Path:
    """Write weights in the form that ships."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(
        safetensors_bytes({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    )
    return file


def tiny_model(folder: Path, *, ours: bool = True) -> Path:
    """Write a model folder with one small network and weights by chance."""
    made = tiny_plans(ours=ours)
    write_checkpoint(write_plans(folder, made), network_of(made))
    return folder


def fitted_model(folder: Path, volume: Volume, face: BoolArray, rounds: int = 40) -> Path:
    """Write a model with a coarse network that was fitted to one head."""
    import torch

    from ctdeface_worker.segmentation.nnunet.network import quiet

    with quiet():
        from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    made = tiny_plans(COARSE)
    manager, labeled = PlansManager(made), on_grid(volume, face)
    images = (
        labeled.volume.hu[None],
        labeled.face[None].astype("int8"),
        {"spacing": [TRAINING_GRID_MM] * 3},
    )
    plan = manager.get_configuration(CONFIGURATION)
    data, seg, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        *images, manager, plan, dataset_json(1)
    )
    spare = [(0, -length % 4) for length in data.shape[1:]]
    image = torch.from_numpy(np.pad(data, [(0, 0), *spare]))[None].float()
    truth = torch.from_numpy(np.pad(seg[0], spare) > 0).float()
    network = network_of(made)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(rounds):
        logits = network(image)
        face_there = torch.softmax(logits, 1)[0, 1]
        dice = 2 * (face_there * truth).sum() / (face_there.sum() + truth.sum())
        loss = 1 - dice + torch.nn.functional.cross_entropy(logits, truth[None].long())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own gap
        optimizer.step()
    write_safetensors(write_plans(folder, made) / "fold_0" / "weights.safetensors", network)
    return folder
