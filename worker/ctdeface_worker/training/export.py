"""Export of a model folder for nnU-Net, with safetensors."""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_worker.segmentation.models.files import MIRRORED
from ctdeface_worker.training import plan
from ctdeface_worker.training.dataset import Folders, entries
from ctdeface_worker.training.train import RECIPE, checkpoint
from ctdeface_worker.training.trainer_names import FINAL, MIRRORED_AXES, STOCK_TRAINER

if TYPE_CHECKING:
    from torch import Tensor

FOLD = "fold_0"
WEIGHTS = "weights.safetensors"
RECORD = "training.json"


def export(folders: Folders, out: Path) -> Path:
    """Write the model folder of the last checkpoint.

    Args:
        folders: of the training.
        out: the folder to write, called "trained model folder" by nnU-Net.

    Returns:
        The folder.

    Raises:
        ConfigurationError: there is not yet a checkpoint.
    """
    import torch

    found = checkpoint(folders)
    if found is None:
        raise ConfigurationError(
            f"{folders.root} contains no checkpoint: run `ctdeface train {folders.root}` first"
        )
    # The trainer wrote this file on this machine; it contains NumPy numbers besides tensors.
    content = torch.load(found, map_location="cpu", weights_only=False)
    (out / FOLD).mkdir(parents=True, exist_ok=True)
    for name, source in (
        ("plans.json", f"{plan.PLANS_NAME}.json"),
        ("dataset.json", "dataset.json"),
    ):
        (out / name).write_bytes((folders.preprocessed / source).read_bytes())
    weights = {name: tensor.contiguous() for name, tensor in content["network_weights"].items()}
    arguments = {
        key: content["init_args"][key] for key in ("plans", "configuration", "fold", "dataset_json")
    }
    epochs = int(content["current_epoch"])
    slim = {
        "network_weights": weights,
        "current_epoch": epochs,
        "init_args": arguments,
        "trainer_name": STOCK_TRAINER,
        "inference_allowed_mirroring_axes": MIRRORED_AXES,
    }
    torch.save(slim, out / FOLD / FINAL)
    (out / FOLD / WEIGHTS).write_bytes(safetensors_of(weights))
    (out / RECORD).write_text(json.dumps(_record(folders, out, epochs), indent=1), encoding="utf-8")
    return out


def safetensors_bytes(
    arrays: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return float32 arrays in the safetensors format.

    The format is the length of the header, the header as JSON, and the little-endian arrays.

    Args:
        arrays: by name.
        metadata: for the header, such as further names of an array.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, array in arrays.items():
        end = start + array.size * 4
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return (
        struct.pack("<Q", len(text))
        + text
        + b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    )


def safetensors_of(weights: Mapping[str, "Tensor"]) -> bytes:
    """Return the weights as safetensors, each tensor once.

    The network lists its encoder again inside its decoder, and each layer under two names. The
    metadata contains these further names and the axes that may be mirrored.
    """
    first: dict[tuple[int, int], str] = {}
    arrays, same = {}, {}
    for name, tensor in weights.items():
        known = first.setdefault((tensor.data_ptr(), tensor.numel()), name)
        if known == name:
            arrays[name] = tensor.numpy()
        else:
            same[name] = known
    return safetensors_bytes(arrays, same | {MIRRORED: " ".join(map(str, MIRRORED_AXES))})


def _record(folders: Folders, out: Path, epochs: int) -> dict[str, object]:
    """Return the record: recipe, digests of cases and weights."""
    recipe = folders.root / RECIPE
    return {
        "epochs": epochs,
        "recipe": json.loads(recipe.read_text(encoding="utf-8")) if recipe.exists() else {},
        "sha256": {name: sha256_of(out / FOLD / name) for name in (FINAL, WEIGHTS)},
        "cases": [asdict(entry) for entry in entries(folders)],
    }
