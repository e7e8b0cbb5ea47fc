"""Reading and writing of DICOM; the only package of the pipeline with pydicom."""
