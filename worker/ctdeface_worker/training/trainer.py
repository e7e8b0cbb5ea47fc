"""nnU-Net's trainer with what a face needs otherwise: heads are not turned upside down, and nothing of the machine is written down.

Importing this module imports nnU-Net, which reads its folders from the environment at that moment.
"""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

MIRRORED_AXES = (2,)
"""Left and right only."""


class FaceTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net ships no types
    """The stock trainer; its checkpoints are exported under the stock trainer's name, which can run them."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[object, ...]:  # noqa: N802  nnU-Net's name
        """Mirror left and right only."""
        rotation, flat, initial, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = MIRRORED_AXES
        return rotation, flat, initial, MIRRORED_AXES

    def plot_network_architecture(self) -> None:
        """Draw nothing: it needs a library that nnU-Net does not install."""

    def _save_debug_information(self) -> None:
        """Write nothing: the stock file names the machine."""
