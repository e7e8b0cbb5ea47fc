"""The gate: proves from input and written output that the face is gone. Imports nothing from segmentation."""
