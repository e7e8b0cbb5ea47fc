"""One case from its folder to staged, verified output."""
