"""Evaluation of segmenters: masks against truth and each other, and face detection."""
