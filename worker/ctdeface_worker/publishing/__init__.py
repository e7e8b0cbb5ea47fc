"""From staged output to the outbox, or to quarantine."""
