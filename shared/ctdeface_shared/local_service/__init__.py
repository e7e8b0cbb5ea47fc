"""The whole service as processes on one machine."""
