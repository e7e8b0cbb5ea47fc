"""DICOM in and out: the only door to pydicom in the pipeline."""
