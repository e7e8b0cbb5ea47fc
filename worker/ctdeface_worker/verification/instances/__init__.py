"""The gate's proof on single files: input and output are read again and every difference must be one that was announced."""

from ctdeface_worker.verification.instances.comparison import compare

__all__ = ["compare"]
