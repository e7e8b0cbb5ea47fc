"""The files of an nnU-Net v2 model folder that matter, and the digest over them. Loads nothing of torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError

PLANS, DATASET = "plans.json", "dataset.json"
OUR_WEIGHTS = "model.safetensors"
"""Beside the plans: the whole model, without pickled code."""
FOLD_WEIGHTS = ("weights.safetensors", "checkpoint_final.pth", "checkpoint_best.pth")
"""In the folder of a fold, best first."""
RECORD = "MODEL.json"
SAFE = ".safetensors"
MIRRORED = "mirrored_axes"
"""In the metadata of safetensors that `ctdeface train` writes: axes of an array, with spaces between them."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model folder and which of its files are used.

    Attributes:
        root: what nnU-Net calls the trained model folder.
        weights: one file per network; several are averaged.
    """

    root: Path
    weights: tuple[Path, ...]

    @property
    def used(self) -> tuple[Path, ...]:
        """Every file that has a part in the result, by name."""
        return (self.root / DATASET, *sorted(self.weights), self.root / PLANS)

    @property
    def size(self) -> int:
        """Bytes of the files that are used."""
        return sum(file.stat().st_size for file in self.used)

    def digest(self) -> str:
        """SHA-256 over name, size and SHA-256 of each used file, in the order of the names."""
        total = hashlib.sha256()
        for file in sorted(self.used):
            name = file.relative_to(self.root).as_posix()
            total.update(f"{name}\n{file.stat().st_size}\n{sha256_of(file)}\n".encode())
        return total.hexdigest()


def sha256_of(file: Path) -> str:
    """SHA-256 of one file."""
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def model_files(root: Path) -> ModelFiles:
    """Find the files of the model in a folder.

    Raises:
        ConfigurationError: it is no nnU-Net v2 model folder.
    """
    missing = [name for name in (PLANS, DATASET) if not (root / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{root} is no nnU-Net v2 model folder: it has no {' and no '.join(missing)}"
        )
    if (root / OUR_WEIGHTS).is_file():
        return ModelFiles(root=root, weights=(root / OUR_WEIGHTS,))
    folds = sorted(
        folder for folder in root.glob("fold_*") if folder.name.removeprefix("fold_").isdecimal()
    )
    found = [weights for weights in map(_weights, folds or [root / "fold_all"]) if weights]
    if not found:
        raise ConfigurationError(
            f"{root} has no weights: expected {OUR_WEIGHTS}, or {' or '.join(FOLD_WEIGHTS)} in fold_0, fold_1 … or fold_all"
        )
    return ModelFiles(root=root, weights=tuple(found))


def model_folder_below(folder: Path) -> Path:
    """Find the one model folder at or below a folder: downloads hold it a few levels deep.

    Raises:
        ConfigurationError: there is none, or more than one.
    """
    found = sorted(
        plans.parent for plans in folder.rglob(PLANS) if (plans.parent / DATASET).is_file()
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError(
            f"no nnU-Net v2 model in {folder}: no folder there holds both {PLANS} and {DATASET}"
        )
    names = ", ".join(str(one.relative_to(folder)) for one in found)
    raise ConfigurationError(f"{folder} holds several models ({names}): name one of these folders")


def _weights(fold: Path) -> Path | None:
    return next((fold / name for name in FOLD_WEIGHTS if (fold / name).is_file()), None)
