"""Sub-commands of the worker."""
