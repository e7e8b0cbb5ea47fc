"""Settings: their tables, loading and the folders they name."""
