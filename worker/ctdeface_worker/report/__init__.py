"""Reports of jobs: report.json, report.html and index.html."""
