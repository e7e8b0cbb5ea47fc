"""The watcher's sub-command."""
