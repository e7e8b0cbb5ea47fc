"""Reading the inbox until cases are complete."""
