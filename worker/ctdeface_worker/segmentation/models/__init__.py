"""Finding, installing and packing networks."""
