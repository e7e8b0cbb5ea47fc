"""The release gate: prove from input and written output that the face is gone.

It imports nothing from segmentation (decision 0004).
"""
