"""Deface one case to staged and verified output."""
