"""Deface one case, from its folder to staged and verified output."""
