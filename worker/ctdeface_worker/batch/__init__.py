"""The batch command: every case of a folder."""
