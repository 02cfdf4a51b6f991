"""What people read on a terminal: progress, results, findings, one row."""
