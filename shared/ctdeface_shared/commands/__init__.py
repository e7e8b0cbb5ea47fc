"""Sub-commands that need no imaging library."""
