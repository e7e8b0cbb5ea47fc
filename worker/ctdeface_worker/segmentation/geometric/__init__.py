"""The geometric segmenter: deterministic, without training."""
