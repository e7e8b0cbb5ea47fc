"""What every part of ctdeface shares: errors, settings, logs and the command line."""
