"""Replays of cases and dead letters."""
