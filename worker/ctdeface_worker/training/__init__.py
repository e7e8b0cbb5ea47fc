"""Training of the face network with nnU-Net.

It covers the data set, the plan, the training and the export (docs/develop/training.md).
"""
