"""Jobs: their options, messages, manifests and history."""
