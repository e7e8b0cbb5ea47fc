"""Reads weights without executing what a file may hold: safetensors, or pickled checkpoints against a written list of harmless types."""

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

HARMLESS: tuple[Any, ...] = (
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
"""What a checkpoint may hold besides tensors and plain values: the numpy numbers that nnU-Net's trainer logs. Nothing here runs code."""

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
"""What reading a damaged pickle can raise besides its own error."""

_NAMED = re.compile(r"GLOBAL (\S+)")
"""How torch's restricted reader names what it refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One network's parameters.

    Attributes:
        tensors: by the names of the network's layers.
        configuration: nnU-Net's name of the plan they were trained by, None where the file does not
            say.
        mirrored_axes: axes that may be mirrored to average predictions, None where the file does
            not say.
    """

    tensors: Tensors
    configuration: str | None = None
    mirrored_axes: tuple[int, ...] | None = None


def read_weights(file: Path) -> Weights:
    """Read one file of weights; nothing in it is executed.

    Raises:
        ConfigurationError: it is damaged, or holds anything but weights and plain values.
    """
    return _from_safetensors(file) if file.suffix == SAFE else _from_checkpoint(file)


def _from_safetensors(file: Path) -> Weights:
    """Read tensors; the metadata says under which other names a network lists some of them again, as safetensors itself writes it.

    It also says, where `ctdeface train` wrote it, along which axes images may be mirrored.
    """
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}
            told = content.metadata() or {}
        axes = told.pop(MIRRORED, None)
        return Weights(
            tensors=tensors
            | {name: tensors[known] for name, known in told.items() if known in tensors},
            mirrored_axes=None if axes is None else tuple(int(axis) for axis in axes.split()),
        )
    except (SafetensorError, ValueError) as error:
        raise ConfigurationError(f"{file} is damaged: {error}") from None


def _from_checkpoint(file: Path) -> Weights:
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            content = torch.load(file, map_location="cpu", weights_only=True)
        return _checked(content, file)
    except pickle.UnpicklingError as error:
        named = _NAMED.search(str(error))
        what = (
            f"it holds {named[1]}, which is no weight"
            if named
            else "it holds something that is no weight, or is damaged"
        )
        raise ConfigurationError(
            f"{file} is refused and nothing in it was run: {what}. Get the model again from whom you trust"
        ) from None
    except DAMAGE as error:
        raise ConfigurationError(
            f"{file} cannot be read as an nnU-Net checkpoint: {type(error).__name__}"
        ) from None


def _checked(content: object, file: Path) -> Weights:
    tensors = content.get("network_weights") if isinstance(content, dict) else None
    if (
        not isinstance(content, dict)
        or not isinstance(tensors, dict)
        or not all(map(torch.is_tensor, tensors.values()))
    ):
        raise ConfigurationError(f"{file} is no nnU-Net v2 checkpoint: it has no network_weights")
    arguments, axes = content.get("init_args"), content.get("inference_allowed_mirroring_axes")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    return Weights(
        tensors=tensors,
        configuration=str(configuration) if configuration is not None else None,
        mirrored_axes=tuple(int(axis) for axis in axes) if axes is not None else None,
    )
