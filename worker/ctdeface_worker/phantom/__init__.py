"""Synthetic heads with known faces and brains, for the demo and the tests."""
