"""Checks of folders, queue, clock, disk and installation."""
