"""Replaying cases and requeuing dead letters."""
