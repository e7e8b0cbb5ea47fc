"""The watcher: finds complete cases in the inbox and publishes their jobs."""
