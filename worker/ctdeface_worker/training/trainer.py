"""nnU-Net's trainer, adapted to faces.

It mirrors heads left to right only, keeps HU unchanged, and records nothing about the machine.
Importing this module imports nnU-Net, which reads its folders from the environment at that moment.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ctdeface_worker.training.trainer_names import BFLOAT16, FLOAT32, MIRRORED_AXES

Forward: TypeAlias = Callable[[torch.Tensor], torch.Tensor | list[torch.Tensor]]


CHANGE_HU = (MultiplicativeBrightnessTransform, ContrastTransform, GammaTransform)
"""Augmentations for images without units; tissue has the same HU in every scan."""
STRETCHED, STRETCH = 0.3, (0.8, 1.25)
"""Probability, and range of factors along each axis, as heads differ in shape."""


class FaceTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net ships no types
    """The stock trainer with other augmentation and resumable runs.

    Checkpoints are exported under the name of the stock trainer, which can load them.
    """

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(  # noqa: N802  nnU-Net's name
        self,
    ) -> tuple[object, ...]:
        """Mirror along the left-right axis only."""
        rotation, flat, initial, _ = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        self.inference_allowed_mirroring_axes = MIRRORED_AXES
        return rotation, flat, initial, MIRRORED_AXES

    @staticmethod
    def get_training_transforms(*of_trainer: object, **named: object) -> BasicTransform:
        """Stretch heads along each axis independently; keep HU unchanged."""
        stock = nnUNetTrainer.get_training_transforms(*of_trainer, **named)
        return ComposeTransforms(
            [
                _for_heads(step)
                for step in stock.transforms
                if not isinstance(_inside(step), CHANGE_HU)
            ]
        )

    precision = FLOAT32
    """Arithmetic of the layers on a CPU; weights, gradients and loss stay float32."""

    def initialize(self) -> None:
        """Build the network."""
        super().initialize()
        if self.precision == BFLOAT16:
            self.network.forward = in_bfloat16(self.network.forward)

    def plot_network_architecture(self) -> None:
        """Do nothing, because nnU-Net does not install the library."""

    def _save_debug_information(self) -> None:
        """Do nothing: the stock file names the machine."""

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint atomically for the next run."""
        part = Path(f"{filename}.part")
        super().save_checkpoint(str(part))
        if part.exists():  # not if checkpoints are disabled
            part.replace(filename)

    last_epoch: int | None = None
    """Epoch at which this run ends; None for the end of the training."""

    def run_training(self) -> None:
        """Train to the end of this run.

        The learning rate follows the whole training.
        """
        if self.last_epoch in {None, self.num_epochs}:
            super().run_training()
            return
        self.on_train_start()
        for _ in range(self.current_epoch, self.last_epoch):
            self.train_one_epoch()

    def train_one_epoch(self) -> None:
        """Train one epoch like the stock trainer."""
        self.on_epoch_start()
        self.on_train_epoch_start()
        self.on_train_epoch_end(
            [
                self.train_step(next(self.dataloader_train))
                for _ in range(self.num_iterations_per_epoch)
            ]
        )
        with torch.no_grad():
            self.on_validation_epoch_start()
            self.on_validation_epoch_end(
                [
                    self.validation_step(next(self.dataloader_val))
                    for _ in range(self.num_val_iterations_per_epoch)
                ]
            )
        self.on_epoch_end()


def in_bfloat16(forward: Forward) -> Forward:
    """Wrap a forward pass to compute in bfloat16 and return float32."""

    def computed(data: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            result = forward(data)
        if isinstance(result, list):
            return [each.float() for each in result]
        return result.float()

    return computed


def _inside(step: BasicTransform) -> BasicTransform:
    return step.transform if isinstance(step, RandomTransform) else step


def _for_heads(step: BasicTransform) -> BasicTransform:
    if isinstance(step, SpatialTransform):
        step.p_scaling, step.scaling, step.p_synchronize_scaling_across_axes = (
            STRETCHED,
            STRETCH,
            0.0,
        )
    return step
