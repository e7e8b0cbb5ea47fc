"""Read and write DICOM; in the pipeline only this package imports pydicom."""
