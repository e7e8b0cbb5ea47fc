"""Find the used files of a model folder and their digest.

It imports nothing of torch.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage.checksum import sha256_of

PLANS, DATASET = "plans.json", "dataset.json"
OUR_WEIGHTS = "model.safetensors"
"""The whole model beside the plans, without pickled code."""
FOLD_WEIGHTS = ("weights.safetensors", "checkpoint_final.pth", "checkpoint_best.pth")
"""Weights in the folder of a fold, the preferred ones first."""
RECORD = "MODEL.json"
SAFE = ".safetensors"
MIRRORED = "mirrored_axes"
"""Key in the safetensors metadata of `ctdeface train`: axes, separated by spaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model folder and its used files.

    Attributes:
        root: the trained model folder in the terms of nnU-Net.
        weights: one file per network; several networks are averaged.
    """

    root: Path
    weights: tuple[Path, ...]

    @property
    def used(self) -> tuple[Path, ...]:
        """Every file that affects the result, by name."""
        return (self.root / DATASET, *sorted(self.weights), self.root / PLANS)

    @property
    def size(self) -> int:
        """Size of the used files in bytes."""
        return sum(file.stat().st_size for file in self.used)

    def digest(self) -> str:
        """Return the SHA-256 over the used files.

        It covers name, size and SHA-256 of each file, in the order of the names.
        """
        total = hashlib.sha256()
        for file in sorted(self.used):
            name = file.relative_to(self.root).as_posix()
            total.update(f"{name}\n{file.stat().st_size}\n{sha256_of(file)}\n".encode())
        return total.hexdigest()


def model_files(root: Path) -> ModelFiles:
    """Find the files of the model in a folder.

    Raises:
        ConfigurationError: it is not an nnU-Net v2 model folder.
    """
    missing = [name for name in (PLANS, DATASET) if not (root / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{root} is not an nnU-Net v2 model folder: {' and '.join(missing)} missing. "
            "Name the folder that holds plans.json and dataset.json"
        )
    if (root / OUR_WEIGHTS).is_file():
        return ModelFiles(root=root, weights=(root / OUR_WEIGHTS,))
    folds = sorted(
        folder for folder in root.glob("fold_*") if folder.name.removeprefix("fold_").isdecimal()
    )
    found = [weights for weights in map(_weights, folds or [root / "fold_all"]) if weights]
    if not found:
        raise ConfigurationError(
            f"{root} has no weights: {OUR_WEIGHTS} is required, or {' or '.join(FOLD_WEIGHTS)} in "
            "fold_0, fold_1 … or fold_all"
        )
    return ModelFiles(root=root, weights=tuple(found))


def model_folder_below(folder: Path) -> Path:
    """Find the only model folder at or below a folder.

    Downloads hold it a few levels deep.

    Raises:
        ConfigurationError: there is not exactly one.
    """
    found = sorted(
        plans.parent for plans in folder.rglob(PLANS) if (plans.parent / DATASET).is_file()
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError(
            f"{folder} holds no nnU-Net v2 model: a folder with both {PLANS} and {DATASET} is "
            "required. Name another folder"
        )
    names = ", ".join(str(one.relative_to(folder)) for one in found)
    raise ConfigurationError(
        f"{folder} holds {len(found)} models; name the folder of one of them: {names}"
    )


def _weights(fold: Path) -> Path | None:
    return next((fold / name for name in FOLD_WEIGHTS if (fold / name).is_file()), None)
