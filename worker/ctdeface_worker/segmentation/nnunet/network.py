"""Build nnU-Net's predictor from a model folder.

No file of the folder can make it import or run anything else than layers of nnU-Net's libraries.
"""

import io
import json
import os
import pydoc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.segmentation.models.files import DATASET, PLANS, ModelFiles
from ctdeface_worker.segmentation.nnunet.weights import Weights, read_weights

# nnU-Net prints that its training folders are not set
with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
    import nnunetv2
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, tqdm
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

# Its progress bars lock with a semaphore by default, which a killed process leaves behind.
tqdm.set_lock(threading.RLock())

Json: TypeAlias = dict[str, Any]

NETWORKS = ("dynamic_network_architectures.architectures.",)
PARTS = ("torch.nn.", "dynamic_network_architectures.")
"""Packages whose layers a plan may name."""
OUR_PLANNER = "ctdeface"
FACE = "face"
STEP = 0.5
"""Step between tiles, as a share of a tile; nnU-Net's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network ready to predict.

    Attributes:
        predictor: nnU-Net's predictor with the parameters of every fold.
        face: label of the face.
        grid_mm: spacing of the canonical grid for a network trained by `ctdeface train`; None for
            other networks, which predict on stored slices.
        patch: voxels of a tile, in the plan's order of axes.
        spacing_mm: spacing of these voxels, in the plan's order of axes.
    """

    predictor: Any
    face: int
    grid_mm: float | None
    patch: tuple[int, ...]
    spacing_mm: tuple[float, ...]


def load_network(files: ModelFiles, *, mirrored: bool = False) -> Network:
    """Load a model folder.

    Args:
        files: files of the model.
        mirrored: average the predictions of mirrored images, which takes two to eight times as
            long.

    Raises:
        ConfigurationError: it is not a network for one CT with a face label, or its files are
            damaged or do not fit together.
    """
    plans, dataset = (_json(files.root / name) for name in (PLANS, DATASET))
    folds = [read_weights(file) for file in files.weights]
    if mirrored and folds[0].mirrored_axes is None:
        raise ConfigurationError(
            f"the weights in {files.root} do not list the axes along which images may be mirrored; "
            "use the model without `:mirrored`"
        )
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        with quiet():
            return _network(plans, dataset, folds, face_label(dataset), mirrored=mirrored)
    except (
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        ImportError,
        AttributeError,
        AssertionError,
    ) as error:
        raise ConfigurationError(
            f"no network can be built from plans and weights in {files.root} "
            f"({type(error).__name__}): they are damaged or of another kind. "
            "Install an undamaged nnU-Net v2 model"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what nnU-Net prints, and its warnings about old plans."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        yield


def face_label(dataset: Json) -> int:
    """Return the label of the face.

    It is the label of that name, or the only one.

    Raises:
        ConfigurationError: it is not unique, or the network requires more than one image.
    """
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    if len(channels) != 1:
        raise ConfigurationError(
            f"the model requires {len(channels)} images per case; exactly one CT is supported. "
            "Install a model for one CT"
        )
    labels = {
        name: value
        for name, value in dataset.get("labels", {}).items()
        if name not in {"background", "ignore"}
    }
    named = {name.lower(): value for name, value in labels.items()}
    value = named.get(FACE, next(iter(named.values())) if len(named) == 1 else None)
    if not isinstance(value, int) or not all(isinstance(one, int) for one in labels.values()):
        raise ConfigurationError(
            f"none of the model's labels ({', '.join(labels)}) is named {FACE!r}; this name is "
            "required unless there is only one label. Rename the label in dataset.json"
        )
    return value


def _network(
    plans: Json, dataset: Json, folds: list[Weights], face: int, *, mirrored: bool
) -> Network:
    manager = PlansManager(plans)
    configuration = manager.get_configuration(_configuration_name(plans, folds[0]))
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    _check_classes(configuration)
    _check_configuration(manager, configuration, face, heads)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        heads,
        allow_init=False,
        deep_supervision=False,
    )
    for fold in folds:
        network.load_state_dict(fold.tensors)
    predictor = nnUNetPredictor(
        tile_step_size=STEP,
        use_mirroring=mirrored,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    parameters = [fold.tensors for fold in folds]
    predictor.manual_initialization(
        network,
        manager,
        configuration,
        parameters,
        dataset,
        "nnUNetTrainer",
        folds[0].mirrored_axes,
    )
    return Network(
        predictor=predictor,
        face=face,
        grid_mm=float(plans["original_median_spacing_after_transp"][0])
        if plans.get("experiment_planner_used") == OUR_PLANNER
        else None,
        patch=tuple(int(edge) for edge in configuration.patch_size),
        spacing_mm=tuple(float(mm) for mm in configuration.spacing),
    )


def _configuration_name(plans: Json, weights: Weights) -> str:
    """Return the plan by which the weights were trained.

    It is the plan that the weights name, or the only one.
    """
    names = list(plans["configurations"])
    if weights.configuration in names:
        return str(weights.configuration)
    if weights.configuration is None and len(names) == 1:
        return str(names[0])
    raise ConfigurationError(
        f"the weights name none of the plans {', '.join(names)}; one of them is required. "
        "Install the model with the plans it was trained by"
    )


def _check_classes(configuration: ConfigurationManager) -> None:
    """Refuse cascades, and classes of other libraries than nnU-Net's.

    Naming a class imports it.
    """
    if configuration.previous_stage_name is not None:
        raise ConfigurationError(
            "the model is the second stage of a cascade, which cannot run alone; "
            "install a 3d_fullres model"
        )
    arguments = configuration.network_arch_init_kwargs
    names = [
        str(arguments[name])
        for name in configuration.network_arch_init_kwargs_req_import
        if arguments[name] is not None
    ]
    foreign = [name for name in names if not _is_layer(name, PARTS)]
    if not _is_layer(configuration.network_arch_class_name, NETWORKS):
        foreign.append(configuration.network_arch_class_name)
    if foreign:
        raise ConfigurationError(
            f"the model's plans name classes outside nnU-Net ({', '.join(foreign)}); only layers "
            "of nnU-Net are loaded. Do not install this model unless you trust its source"
        )


def _check_configuration(
    manager: PlansManager, configuration: ConfigurationManager, face: int, heads: int
) -> None:
    """Check parts of a plan that only predictions use.

    Raises:
        ConfigurationError: one is missing or not supported.
    """
    (scheme,) = configuration.normalization_schemes
    steps = {
        configuration.preprocessor_name: configuration.preprocessor_class,
        scheme: _scheme(scheme),
    }
    if unknown := [name for name, found in steps.items() if found is None]:
        raise ConfigurationError(
            f"the model's plans name steps that this nnU-Net does not have: {', '.join(unknown)}. "
            "Install a model made by nnU-Net itself"
        )
    axes = [manager.transpose_forward, manager.transpose_backward]
    if (
        len(configuration.patch_size) != 3
        or len(configuration.spacing) != 3
        or any(sorted(each) != [0, 1, 2] for each in axes)
    ):
        raise ConfigurationError(
            f"the model's tiles have {len(configuration.patch_size)} dimensions; "
            "3 are required: install a 3d_fullres model"
        )
    if not 0 < face < heads:
        raise ConfigurationError(
            f"the face has label {face}; the model's labels are 1 to {heads - 1}. "
            "Correct the label in dataset.json"
        )


def _scheme(name: str) -> type | None:
    found: type | None = recursive_find_python_class(
        str(Path(nnunetv2.__path__[0], "preprocessing", "normalization")),
        name,
        "nnunetv2.preprocessing.normalization",
    )
    return found


def _is_layer(name: str, packages: tuple[str, ...]) -> bool:
    """Return whether a dotted name is a network's layer.

    Within an allowed package it could name anything that the package imports.
    """
    found = pydoc.locate(name) if name.startswith(packages) else None
    return isinstance(found, type) and issubclass(found, torch.nn.Module)


def _json(file: Path) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} is not a JSON object as nnU-Net writes it")
    return content
