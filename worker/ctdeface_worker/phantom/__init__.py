"""Synthetic head CT with known face and brain.

The demo, the training, the evaluation and the tests use it.
"""
