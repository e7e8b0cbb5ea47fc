"""Running one case in a warm child process."""
