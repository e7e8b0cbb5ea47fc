"""Measures what became of faces: masks against truth and each other, and what a face detector still sees (docs/trust/evaluation.md)."""
