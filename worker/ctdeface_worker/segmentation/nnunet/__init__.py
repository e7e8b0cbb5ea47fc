"""Find the face with an nnU-Net v2 model.

Only this package and training import torch and nnU-Net.
"""
