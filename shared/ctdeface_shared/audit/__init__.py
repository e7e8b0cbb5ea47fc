"""What became of every case, in signed chains of entries that nobody can change unnoticed."""
