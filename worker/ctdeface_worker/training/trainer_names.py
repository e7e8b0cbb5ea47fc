"""Names shared by training and export, without importing nnU-Net."""

TRAINER = "FaceTrainer"
STOCK_TRAINER = "nnUNetTrainer"
FINAL, LATEST = "checkpoint_final.pth", "checkpoint_latest.pth"
"""The final and the latest checkpoint; nnU-Net deletes the latter after the former."""
FLOAT32, BFLOAT16 = "float32", "bfloat16"
MIRRORED_AXES = (2,)
"""The left-right axis only, as heads are not upside down."""
