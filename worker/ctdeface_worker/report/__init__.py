"""Report each job: report.json for programs, report.html and index.html for people."""
