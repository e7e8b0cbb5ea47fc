"""Finds the face with any nnU-Net v2 model folder: the one door, besides training, through which torch and nnU-Net come in."""
