"""The inbox: scanning, completeness, zip files, late files."""
