"""Exports a training as a model folder that stock nnU-Net loads, and the weights as safetensors."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.training import plan
from ctdeface_worker.training.dataset import LIST, Folders
from ctdeface_worker.training.train import RECIPE, checkpoints
from ctdeface_worker.training.trainer_names import MIRRORED_AXES, STOCK_TRAINER

if TYPE_CHECKING:
    from torch import Tensor

FOLD = "fold_0"
CHECKPOINT = "checkpoint_final.pth"
WEIGHTS = "weights.safetensors"
RECORD = "training.json"


def export(folders: Folders, out: Path) -> Path:
    """Write the model folder of the newest checkpoint.

    Args:
        folders: of the training.
        out: folder to write; what nnU-Net calls the trained model folder.

    Returns:
        The folder.

    Raises:
        ConfigurationError: there is no checkpoint yet.
    """
    import torch  # noqa: PLC0415  loaded only when training

    found = next((file for file in checkpoints(folders) if file.exists()), None)
    if found is None:
        message = f"nothing is trained below {folders.root} yet; run `ctdeface train {folders.root}` first"
        raise ConfigurationError(message)
    # our own file, written by the trainer on this machine; it holds numpy numbers besides tensors
    checkpoint = torch.load(found, map_location="cpu", weights_only=False)
    (out / FOLD).mkdir(parents=True, exist_ok=True)
    for name, source in (("plans.json", f"{plan.PLANS_NAME}.json"), ("dataset.json", "dataset.json")):
        (out / name).write_bytes((folders.preprocessed / source).read_bytes())
    weights = {name: tensor.contiguous() for name, tensor in checkpoint["network_weights"].items()}
    arguments = {key: checkpoint["init_args"][key] for key in ("plans", "configuration", "fold", "dataset_json")}
    epochs = int(checkpoint["current_epoch"])
    slim = {
        "network_weights": weights,
        "current_epoch": epochs,
        "init_args": arguments,
        "trainer_name": STOCK_TRAINER,
        "inference_allowed_mirroring_axes": MIRRORED_AXES,
    }
    torch.save(slim, out / FOLD / CHECKPOINT)
    (out / FOLD / WEIGHTS).write_bytes(_safetensors(weights))
    (out / RECORD).write_text(json.dumps(_record(folders, out, epochs), indent=1), encoding="utf-8")
    return out


def safetensors_bytes(arrays: Mapping[str, NDArray[np.float32]], same: Mapping[str, str] | None = None) -> bytes:
    """Write float32 arrays in the safetensors format: length of the header, header as JSON, bytes (little endian) one after the other.

    Args:
        arrays: by name.
        same: other names of arrays that are written once, kept in the header's metadata.
    """
    header: dict[str, object] = {"__metadata__": dict(same)} if same else {}
    start = 0
    for name, array in arrays.items():
        end = start + array.size * 4
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(array.astype("<f4").tobytes() for array in arrays.values())


def _safetensors(weights: Mapping[str, "Tensor"]) -> bytes:
    """Write every tensor once: the network lists its encoder again inside its decoder, and each layer under two names."""
    first: dict[tuple[int, int], str] = {}
    arrays, same = {}, {}
    for name, tensor in weights.items():
        known = first.setdefault((tensor.data_ptr(), tensor.numel()), name)
        if known == name:
            arrays[name] = tensor.numpy()
        else:
            same[name] = known
    return safetensors_bytes(arrays, same)


def _record(folders: Folders, out: Path, epochs: int) -> dict[str, object]:
    """Say what the model was made from: list of cases with digests, recipe, digests of the weights."""
    cases = (folders.raw / LIST).read_text(encoding="utf-8").splitlines()
    recipe = folders.root / RECIPE
    return {
        "epochs": epochs,
        "recipe": json.loads(recipe.read_text(encoding="utf-8")) if recipe.exists() else {},
        "sha256": {name: hashlib.sha256((out / FOLD / name).read_bytes()).hexdigest() for name in (CHECKPOINT, WEIGHTS)},
        "cases": [json.loads(line) for line in cases],
    }
