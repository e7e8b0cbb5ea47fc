"""What a person and a program can read about a case: report.json and report.html."""
