"""Turning complete cases into jobs and following them."""
