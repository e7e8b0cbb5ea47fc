"""Prove that files differ from their inputs only as announced."""

from ctdeface_worker.verification.instances.comparison import compare_files
from ctdeface_worker.verification.instances.pixels import ExpectedPixels

__all__ = ["ExpectedPixels", "compare_files"]
