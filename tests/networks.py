"""Small nnU-Net model folders for the tests, made on the spot with weights by hand or by chance."""

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctdeface_worker.training.export import safetensors_bytes
from ctdeface_worker.training.plan import CONFIGURATION, dataset_json, plans

if TYPE_CHECKING:
    import torch

TINY = (4, 8)
BRIGHT_HU = -700.0
"""The network made by hand marks what is brighter than this."""


def tiny_plans(*, patch: tuple[int, int, int] = (32, 32, 32), features: tuple[int, ...] = TINY, ours: bool = True) -> dict[str, Any]:
    """Return plans as `ctdeface train` writes them, or as somebody else would."""
    made = deepcopy(plans("Dataset601_Face", patch, features))
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


def write_checkpoint(folder: Path, network: "torch.nn.Module", name: str = "fold_0/checkpoint_final.pth", **more: object) -> Path:
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
    file.write_bytes(safetensors_bytes({name: tensor.numpy() for name, tensor in network.state_dict().items()}))
    return file


def tiny_model(folder: Path, *, ours: bool = True) -> Path:
    """Write a model folder with one small network and weights by chance."""
    made = tiny_plans(ours=ours)
    write_checkpoint(write_plans(folder, made), network_of(made))
    return folder
