"""Names that training and export agree on; importing them imports no nnU-Net."""

TRAINER = "FaceTrainer"
STOCK_TRAINER = "nnUNetTrainer"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
"""Where a training stands, best first."""
FLOAT32, BFLOAT16 = "float32", "bfloat16"
MIRRORED_AXES = (2,)
"""Left and right only: heads are not turned upside down."""
