"""Prove single files: every difference between input and output must be announced."""

from ctdeface_worker.verification.instances.comparison import compare_files
from ctdeface_worker.verification.instances.pixels import ExpectedPixels

__all__ = ["ExpectedPixels", "compare_files"]
