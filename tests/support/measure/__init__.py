"""The tests' own measure of how much facial skin is gone; knows nothing of segmentation and verification."""
