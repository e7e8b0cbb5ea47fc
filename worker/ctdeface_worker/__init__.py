"""Runs the deface pipeline on one case."""
