"""Plan of the network in the format of nnU-Net 2.6."""

from dataclasses import dataclass
from typing import TypeAlias

from ctdeface_worker.imaging.hounsfield import AIR_HU
from ctdeface_worker.training.labels import TRAINING_GRID_MM

Json: TypeAlias = dict[str, object]

CONFIGURATION = "3d_fullres"
PLANS_NAME = "nnUNetPlans"
BATCH = 2
HU_RANGE = (-1000.0, 1000.0)
STEP_HU = 500.0
"""Air is 0 after normalization; nnU-Net pads with the same value."""
LABELS = {"background": 0, "face": 1}

_RESAMPLING = {"order": 1, "order_z": 0, "force_separate_z": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Size of the network and of its patches.

    Attributes:
        grid_mm: edge length of its voxels in mm.
        patch: voxels along (superior, posterior, left), each a multiple of 2 ** (stages - 1).
        features: number of channels of each stage.
    """

    grid_mm: float = TRAINING_GRID_MM
    patch: tuple[int, int, int] = (64, 64, 64)
    features: tuple[int, ...] = (16, 32, 64, 96, 128)


USUAL = Size()
"""Patches of 160 mm: a whole face with the skull behind it; 9.4 MB of weights."""
SMALL = Size(grid_mm=6.0, patch=(40, 40, 32), features=(8, 16, 32, 32))
"""For a trial and for tests."""


def plans(dataset: str, size: Size = USUAL) -> Json:
    """Return the plan.

    Args:
        dataset: nnU-Net's name of the data set, "Dataset601_Face".
        size: size of the network.
    """
    return {
        "dataset_name": dataset,
        "plans_name": PLANS_NAME,
        "original_median_spacing_after_transp": [TRAINING_GRID_MM] * 3,
        "original_median_shape_after_transp": [90, 90, 80],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ctdeface",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": _intensities()},
        "configurations": {CONFIGURATION: _configuration(size)},
    }


def dataset_json(cases: int) -> Json:
    """Return nnU-Net's description of the data set."""
    return {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }


def _configuration(size: Size) -> Json:
    return {
        "data_identifier": f"{PLANS_NAME}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": BATCH,
        "patch_size": list(size.patch),
        "median_image_size_in_voxels": [90.0, 90.0, 80.0],
        "spacing": [size.grid_mm] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, **_RESAMPLING},
        "resampling_fn_seg_kwargs": {"is_seg": True, **_RESAMPLING},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, **_RESAMPLING},
        "architecture": _architecture(size.features),
        "batch_dice": True,
    }


def _architecture(features: tuple[int, ...]) -> Json:
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [1] + [2] * (stages - 1),
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _intensities() -> dict[str, float]:
    """Return fixed intensities, because HU are absolute."""
    low, high = HU_RANGE
    return {
        "mean": AIR_HU,
        "median": AIR_HU,
        "std": STEP_HU,
        "min": low,
        "max": high,
        "percentile_00_5": low,
        "percentile_99_5": high,
    }
