"""The tests' measure of removed facial skin, independent of segmentation and verification."""
