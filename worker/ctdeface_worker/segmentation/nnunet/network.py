"""Builds nnU-Net's predictor from a model folder, with nothing imported or run on the word of the folder's files."""

import io
import json
import os
import pydoc
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

with (
    redirect_stdout(io.StringIO()),
    warnings.catch_warnings(action="ignore"),
):  # it says that its training folders are not set
    import nnunetv2
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

Json: TypeAlias = dict[str, Any]

NETWORKS = ("dynamic_network_architectures.architectures.",)
PARTS = ("torch.nn.", "dynamic_network_architectures.")
"""A plan names classes; only layers of these packages are taken."""
OUR_PLANNER = "ctdeface"
FACE = "face"
STEP = 0.5
"""Tiles overlap by half, as in nnU-Net."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network ready to predict.

    Attributes:
        predictor: nnU-Net's, with the parameters of every fold.
        face: label of the face.
        grid_mm: of the canonical grid that a network of ours was shown; None for others, which see
            stored slices.
        patch: voxels of a tile, in the plan's order of axes.
        spacing_mm: of its voxels, in the plan's order of axes.
    """

    predictor: Any
    face: int
    grid_mm: float | None
    patch: tuple[int, ...]
    spacing_mm: tuple[float, ...]


def load_network(files: ModelFiles, *, mirrored: bool = False) -> Network:
    """Load a model folder.

    Args:
        files: of the model.
        mirrored: average the predictions of mirrored images as well; takes twice to eight times as
            long.

    Raises:
        ConfigurationError: it is no single-channel CT network with a face label, its files are
            damaged or they do not fit each other.
    """
    plans, dataset = (_json(files.root / name) for name in (PLANS, DATASET))
    folds = [read_weights(file) for file in files.weights]
    if mirrored and folds[0].mirrored_axes is None:
        raise ConfigurationError(
            f"the weights in {files.root} do not say along which axes images may be mirrored: use the model without `:mirrored`"
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
            f"plans and weights in {files.root} make no network ({type(error).__name__}): damaged, or of another kind"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what nnU-Net prints to itself, and its words about old plans."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        yield


def face_label(dataset: Json) -> int:
    """Return the label that is the face: the one of that name, or the only one.

    Raises:
        ConfigurationError: it cannot be told, or the network wants more than one image.
    """
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    if len(channels) != 1:
        raise ConfigurationError(
            f"the model takes {len(channels)} images at once; a face network here takes one CT"
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
            f"none of the model's labels ({', '.join(labels)}) is called {FACE!r}, so it cannot be told what to remove"
        )
    return value


def _network(
    plans: Json, dataset: Json, folds: list[Weights], face: int, *, mirrored: bool
) -> Network:
    manager = PlansManager(plans)
    configuration = manager.get_configuration(_configuration_name(plans, folds[0]))
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    _refuse_what_cannot_run(configuration)
    _refuse_what_would_fail_later(manager, configuration, face, heads)
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
    """Return the plan the weights were trained by: they say so, or there is only one."""
    names = list(plans["configurations"])
    if weights.configuration in names:
        return str(weights.configuration)
    if weights.configuration is None and len(names) == 1:
        return str(names[0])
    raise ConfigurationError(
        f"the weights do not say which of the plans {', '.join(names)} they belong to"
    )


def _refuse_what_cannot_run(configuration: ConfigurationManager) -> None:
    """Refuse cascades, and classes from anywhere but nnU-Net's own libraries: naming a class imports it."""
    if configuration.previous_stage_name is not None:
        raise ConfigurationError(
            "the model is the second stage of a cascade, which cannot run on its own; install a 3d_fullres model"
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
            f"the model's plans name classes that do not belong to nnU-Net ({', '.join(foreign)}); they are not loaded"
        )


def _refuse_what_would_fail_later(
    manager: PlansManager, configuration: ConfigurationManager, face: int, heads: int
) -> None:
    """Look at what nnU-Net asks a plan for only when it has a scan.

    Raises:
        ConfigurationError: it would not find it.
    """
    (scheme,) = configuration.normalization_schemes
    steps = {
        configuration.preprocessor_name: configuration.preprocessor_class,
        scheme: _scheme(scheme),
    }
    if unknown := [name for name, found in steps.items() if found is None]:
        raise ConfigurationError(
            f"the model's plans name steps that this nnU-Net does not have: {', '.join(unknown)}"
        )
    axes = [manager.transpose_forward, manager.transpose_backward]
    if (
        len(configuration.patch_size) != 3
        or len(configuration.spacing) != 3
        or any(sorted(each) != [0, 1, 2] for each in axes)
    ):
        raise ConfigurationError("the model does not look at volumes; install a 3d_fullres model")
    if not 0 < face < heads:
        raise ConfigurationError(
            f"the face is the model's label {face}, and its labels go from 1 to {heads - 1}"
        )


def _scheme(name: str) -> type | None:
    found: type | None = recursive_find_python_class(
        str(Path(nnunetv2.__path__[0], "preprocessing", "normalization")),
        name,
        "nnunetv2.preprocessing.normalization",
    )
    return found


def _is_layer(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name leads to a network's layer; within a package it could lead on to anything that it imports."""
    found = pydoc.locate(name) if name.startswith(packages) else None
    return isinstance(found, type) and issubclass(found, torch.nn.Module)


def _json(file: Path) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} is not what nnU-Net writes")
    return content
