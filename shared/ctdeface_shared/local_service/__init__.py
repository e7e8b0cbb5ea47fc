"""The service on one machine: watcher and workers as supervised processes."""
