"""Folders, atomic writes and locks on shared file systems."""
