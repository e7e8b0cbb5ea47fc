"""The geometric segmenter: rays from inside the skull; deterministic, no training."""
