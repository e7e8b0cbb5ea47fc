"""The worker of the streaming service."""
