"""Training with nnU-Net's trainer on one CPU or GPU.

A training may take several runs; each resumes from the last checkpoint.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage import atomic
from ctdeface_worker.training import plan
from ctdeface_worker.training.dataset import NAME, Folders, entries
from ctdeface_worker.training.trainer_names import BFLOAT16, FINAL, FLOAT32, LATEST, TRAINER

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ctdeface_worker.segmentation.nnunet.weights import Tensors

VALIDATION_SHARE = 10
"""One of this many cases is used for validation."""
COMPRESSION = 1
"""Level for the stored arrays; nnU-Net's level 8 is slow and saves little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options that determine a training.

    Attributes:
        epochs: number of epochs; the learning rate falls to 0 with the last.
        iterations: number of batches per epoch.
        seed: of the weights and the order of the cases.
        size: size of the network.
        device: "cpu" or "cuda".
        learning_rate: of the first epoch.
        began_with: SHA-256 of the initial weights, empty for random ones.
        precision: "float32" or "bfloat16", used inside the layers.
    """

    epochs: int = 100
    iterations: int = 50
    seed: int = 1
    size: plan.Size = plan.USUAL
    device: str = "cpu"
    learning_rate: float = 0.01
    began_with: str = ""
    precision: str = FLOAT32


RECIPE = "recipe.json"
MAY_CHANGE = {"epochs", "device", "precision"}
"""Options that a later run may change."""


def begin(folders: Folders, recipe: Recipe) -> None:
    """Write the recipe, or compare it with that of earlier runs.

    Raises:
        ConfigurationError: the folder contains another training.
    """
    file = folders.root / RECIPE
    content = json.dumps(asdict(recipe), indent=1)
    wanted = json.loads(content)
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else wanted
    changed = [
        name for name in sorted(wanted.keys() - MAY_CHANGE) if before.get(name) != wanted[name]
    ]
    if changed:
        raise ConfigurationError(
            f"the training in {folders.root} differs in {', '.join(changed)}: resume it with its"
            " original options, or train in another folder"
        )
    folders.root.mkdir(parents=True, exist_ok=True)
    atomic.write_file(file, content.encode())


def check_device(device: str) -> None:
    """Check that a device is available.

    Raises:
        ConfigurationError: it is not available.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "PyTorch finds no CUDA device: train with --device cpu, or install the build of PyTorch"
            " for your GPU"
        )


def precision_on(device: str) -> str:
    """Return the precision of the layers on a device.

    A CPU with bfloat16 instructions needs half the time per step with them.
    """
    import torch

    return (
        BFLOAT16 if device == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16") else FLOAT32
    )


def weights_for(file: Path, recipe: Recipe) -> "Tensors":
    """Read initial weights; widen those of a narrower network.

    Raises:
        ConfigurationError: they cannot be read, or do not fit the network.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from ctdeface_worker.segmentation.nnunet.weights import read_weights
    from ctdeface_worker.training.widen import widened

    tensors = read_weights(file).tensors
    configuration = PlansManager(plan.plans(NAME, recipe.size)).get_configuration(
        plan.CONFIGURATION
    )
    torch.manual_seed(recipe.seed)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        len(plan.LABELS),
        deep_supervision=True,
    )
    try:
        return widened(tensors, network.state_dict())
    except ValueError as error:
        raise ConfigurationError(
            f"the weights in {file} do not fit this network: use weights of a network with as many"
            " stages and not more channels, trained with --small if this one is"
        ) from error


def preprocess(folders: Folders, recipe: Recipe) -> None:
    """Write the missing normalized arrays with nnU-Net's preprocessor."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    out = folders.preprocessed
    made = plan.plans(NAME, recipe.size)
    cases = entries(folders)
    names = [entry.name for entry in cases]
    described = plan.dataset_json(len(names))
    sources = sorted({entry.source for entry in cases})[::VALIDATION_SHARE]
    validation = [entry.name for entry in cases if entry.source in sources]
    training = [name for name in names if name not in validation]
    files = {
        f"{plan.PLANS_NAME}.json": made,
        "dataset.json": described,
        "dataset_fingerprint.json": {},
        "splits_final.json": [{"train": training, "val": validation}],
    }
    manager = PlansManager(made)
    configuration = manager.get_configuration(plan.CONFIGURATION)
    arrays = out / configuration.data_identifier
    arrays.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    case = DefaultPreprocessor(verbose=False)
    for name in names:
        if (arrays / f"{name}.pkl").exists():
            continue
        image, label = (
            folders.raw / part
            for part in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz")
        )
        hu, face, about = case.run_case([str(image)], str(label), manager, configuration, described)
        stored = {
            "data": hu.astype(np.float32, copy=False),
            "seg": face.astype(np.int16, copy=False),
        }
        nnUNetDatasetBlosc2.save_case(
            **stored,
            properties=about,
            output_filename_truncated=str(arrays / name),
            clevel=COMPRESSION,
        )


def train(
    folders: Folders,
    recipe: Recipe,
    *,
    begin_with: "Tensors | None" = None,
    stop_after: int | None = None,
) -> None:
    """Train, or resume a training.

    Args:
        folders: with the preprocessed data set.
        recipe: the same in every run.
        begin_with: initial weights; None for random ones.
        stop_after: number of epochs of this run; None trains to the end.
    """
    import torch

    trainer = _trainer(folders, recipe, torch.device(recipe.device))
    reached = checkpoint(folders)
    if reached is not None:
        trainer.load_checkpoint(str(reached))
        if trainer.current_epoch < recipe.epochs:
            # The recipe has more epochs now, so this checkpoint is not the final one.
            reached.replace(reached.with_name(LATEST))
    elif begin_with is not None:
        trainer.initialize()
        trainer.network.load_state_dict(begin_with)
    torch.manual_seed(recipe.seed + trainer.current_epoch)
    # nnU-Net's data loaders draw from the global generator.
    np.random.seed(recipe.seed + trainer.current_epoch)  # noqa: NPY002  nnU-Net's generator
    if trainer.current_epoch < recipe.epochs:
        wanted = recipe.epochs if stop_after is None else stop_after
        trainer.last_epoch = min(trainer.current_epoch + wanted, recipe.epochs)
        trainer.run_training()


def checkpoint(folders: Folders) -> Path | None:
    """Return the last checkpoint, None before the first."""
    fold = folders.results / NAME / f"{TRAINER}__{plan.PLANS_NAME}__{plan.CONFIGURATION}" / "fold_0"
    return next((fold / name for name in (FINAL, LATEST) if (fold / name).exists()), None)


def prepare_environment(folders: Folders) -> None:
    """Set nnU-Net's folders and limit it to this process.

    nnU-Net reads these variables when it is imported.

    Raises:
        ConfigurationError: nnU-Net was already imported with other folders.
    """
    wanted = {
        "nnUNet_raw": folders.raw.parent,
        "nnUNet_preprocessed": folders.preprocessed.parent,
        "nnUNet_results": folders.results,
    }
    os.environ.update(
        {name: str(folder) for name, folder in wanted.items()},
        nnUNet_n_proc_DA="0",
        nnUNet_compile="false",
    )
    from nnunetv2 import paths

    if str(folders.results) != paths.nnUNet_results:
        raise ConfigurationError(
            "nnU-Net already uses other folders in this process: run `ctdeface train` in a process"
            " of its own"
        )


def _trainer(folders: Folders, recipe: Recipe, device: object) -> "nnUNetTrainer":
    from ctdeface_worker.training.trainer import FaceTrainer

    plans = json.loads(
        (folders.preprocessed / f"{plan.PLANS_NAME}.json").read_text(encoding="utf-8")
    )
    described = json.loads((folders.preprocessed / "dataset.json").read_text(encoding="utf-8"))
    trainer = FaceTrainer(plans, plan.CONFIGURATION, 0, described, device)
    trainer.num_epochs, trainer.num_iterations_per_epoch = recipe.epochs, recipe.iterations
    trainer.num_val_iterations_per_epoch = max(recipe.iterations // 10, 2)
    trainer.save_every = 1
    trainer.initial_lr, trainer.precision = recipe.learning_rate, recipe.precision
    return trainer
