"""Sees new DICOM folders in the inbox and publishes jobs."""
