"""Evaluation of segmenters by masks and face detection."""
