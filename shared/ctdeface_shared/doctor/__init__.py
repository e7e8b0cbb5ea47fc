"""Checks of folders, queue, clock, disk, ports and installation."""
