"""The audit log: signed, chained entries on how each case ended."""
