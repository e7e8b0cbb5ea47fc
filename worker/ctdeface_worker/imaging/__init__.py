"""Volumes, geometry and masks, without anatomy."""
