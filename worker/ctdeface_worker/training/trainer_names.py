"""Names that training and export agree on; importing them imports no nnU-Net."""

TRAINER = "FaceTrainer"
STOCK_TRAINER = "nnUNetTrainer"
FINAL, LATEST = "checkpoint_final.pth", "checkpoint_latest.pth"
"""Where a training stands: at its end, or on the way. nnU-Net removes the second when it has written the first."""
FLOAT32, BFLOAT16 = "float32", "bfloat16"
MIRRORED_AXES = (2,)
"""Left and right only: heads are not turned upside down."""
