"""Read weights without executing anything that a file contains.

It reads safetensors, and pickled checkpoints with an allow-list of types.
"""

import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors import SafetensorError, safe_open

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.segmentation.models.files import MIRRORED, SAFE

Tensors: TypeAlias = Mapping[str, torch.Tensor]

ALLOWED_TYPES: tuple[Any, ...] = (
    scalar,
    (scalar, "numpy.core.multiarray.scalar"),  # its name before numpy 2
    np.dtype,
    *(
        type(np.dtype(name))
        for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")
    ),
    *(
        getattr(np, name)
        for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool_")
    ),
)
"""Types in a checkpoint besides tensors and plain values; none of them runs code.

They are the numpy numbers that nnU-Net's trainer logs.
"""

DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
)
"""Errors besides UnpicklingError that reading a damaged pickle raises."""

_NAMED = re.compile(r"GLOBAL (\S+)")
"""The name of a refused type in the error of torch's restricted reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One network's parameters.

    Attributes:
        tensors: by the names of the network's layers.
        configuration: name of the plan they were trained by, None if the file does not contain it.
        mirrored_axes: axes that may be mirrored to average predictions, None if the file does not
            contain them.
    """

    tensors: Tensors
    configuration: str | None = None
    mirrored_axes: tuple[int, ...] | None = None


def read_weights(file: Path) -> Weights:
    """Read one file of weights without executing anything in it.

    Raises:
        ConfigurationError: it is damaged, or contains anything but weights and plain values.
    """
    return _from_safetensors(file) if file.suffix == SAFE else _from_checkpoint(file)


def _from_safetensors(file: Path) -> Weights:
    """Read tensors and metadata.

    The metadata maps further names of a tensor to its stored name, as safetensors writes it. A file
    of `ctdeface train` also lists the axes along which images may be mirrored.
    """
    try:
        with safe_open(file, framework="pt") as content:
            names = list(content.keys())
            tensors = {name: content.get_tensor(name) for name in names}
            metadata = content.metadata() or {}
        axes = metadata.pop(MIRRORED, None)
        return Weights(
            tensors=tensors
            | {name: tensors[known] for name, known in metadata.items() if known in tensors},
            mirrored_axes=None if axes is None else tuple(int(axis) for axis in axes.split()),
        )
    except (SafetensorError, ValueError) as error:
        raise ConfigurationError(f"{file} is damaged: {error}") from None


def _from_checkpoint(file: Path) -> Weights:
    try:
        with torch.serialization.safe_globals(list(ALLOWED_TYPES)):
            content = torch.load(file, map_location="cpu", weights_only=True)
        return _checked(content, file)
    except pickle.UnpicklingError as error:
        named = _NAMED.search(str(error))
        found = (
            f"it contains {named[1]}"
            if named
            else "it is damaged, or contains other objects than weights"
        )
        raise ConfigurationError(
            f"{file} is refused and nothing in it was executed: {found}; only weights and plain "
            "values are allowed. Get the model again from a source that you trust"
        ) from None
    except DAMAGE as error:
        raise ConfigurationError(
            f"{file} cannot be read as an nnU-Net v2 checkpoint ({type(error).__name__}); "
            "get the model again"
        ) from None


def _checked(content: object, file: Path) -> Weights:
    tensors = content.get("network_weights") if isinstance(content, dict) else None
    if (
        not isinstance(content, dict)
        or not isinstance(tensors, dict)
        or not all(map(torch.is_tensor, tensors.values()))
    ):
        raise ConfigurationError(
            f"{file} has no network_weights, which an nnU-Net v2 checkpoint must have"
        )
    arguments, axes = content.get("init_args"), content.get("inference_allowed_mirroring_axes")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    return Weights(
        tensors=tensors,
        configuration=str(configuration) if configuration is not None else None,
        mirrored_axes=tuple(int(axis) for axis in axes) if axes is not None else None,
    )
