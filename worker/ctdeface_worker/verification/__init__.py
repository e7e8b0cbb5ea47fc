"""The release gate: prove that the face is gone.

It imports nothing from segmentation (decision 0004).
"""
