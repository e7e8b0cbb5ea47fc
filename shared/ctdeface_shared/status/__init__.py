"""What is in the spool and how the service is doing."""
