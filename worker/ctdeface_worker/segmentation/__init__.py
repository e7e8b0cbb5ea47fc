"""Finds the face: from a volume to a face mask."""
