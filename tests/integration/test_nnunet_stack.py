"""The pinned nnunetv2 and the CPU build of torch work without torchvision (decision 0002)."""

from importlib import metadata
from typing import Any

import numpy as np
import pytest

SPACING_MM = (2.0, 2.0, 2.0)
PATCH = (16, 16, 16)
NETWORK = "dynamic_network_architectures.architectures.unet.PlainConvUNet"

PLANS: dict[str, Any] = {
    "dataset_name": "Dataset001_Tiny",
    "plans_name": "tiny",
    "original_median_spacing_after_transp": list(SPACING_MM),
    "original_median_shape_after_transp": list(PATCH),
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "none",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {
            "min": -1024.0,
            "max": 3000.0,
            "mean": 0.0,
            "median": 0.0,
            "std": 500.0,
            "percentile_00_5": -1000.0,
            "percentile_99_5": 2000.0,
        }
    },
    "configurations": {
        "3d_fullres": {
            "data_identifier": "tiny",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 1,
            "patch_size": list(PATCH),
            "median_image_size_in_voxels": list(PATCH),
            "spacing": list(SPACING_MM),
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {
                "is_seg": False,
                "order": 1,
                "order_z": 0,
                "force_separate_z": None,
            },
            "resampling_fn_seg_kwargs": {
                "is_seg": True,
                "order": 0,
                "order_z": 0,
                "force_separate_z": None,
            },
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {
                "is_seg": False,
                "order": 1,
                "order_z": 0,
                "force_separate_z": None,
            },
            "architecture": {
                "network_class_name": NETWORK,
                "arch_kwargs": {
                    "n_stages": 2,
                    "features_per_stage": [4, 8],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                    "strides": [[1, 1, 1], [2, 2, 2]],
                    "n_conv_per_stage": [1, 1],
                    "n_conv_per_stage_decoder": [1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
            "batch_dice": False,
        }
    },
}

DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "face": 1},
    "file_ending": ".nii.gz",
}


def test_a_random_tiny_network_predicts_a_mask_of_the_input_shape() -> None:
    """NnUNetPredictor imports, takes a network and segments an array on the CPU."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(0)
    plans = PlansManager(PLANS)
    configuration = plans.get_configuration("3d_fullres")
    architecture = PLANS["configurations"]["3d_fullres"]["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        2,
        deep_supervision=False,
    )
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
        verbose_preprocessing=False,
    )
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], DATASET, "nnUNetTrainer", None
    )
    hu = np.random.default_rng(0).normal(0, 300, (1, 20, 24, 28)).astype(np.float32)
    labels = predictor.predict_single_npy_array(hu, {"spacing": list(SPACING_MM)})
    assert labels.shape == hu.shape[1:]
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize("unwanted", ["torchvision", "triton"])
def test_nothing_of_cuda_comes_along(unwanted: str) -> None:
    """No installed distribution is one that pulls a CUDA build, or part of one."""
    names = {distribution.name.lower() for distribution in metadata.distributions()}
    assert unwanted not in names
    assert not [name for name in names if name.startswith("nvidia-")]
