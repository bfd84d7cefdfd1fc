"""The quality report: one HTML file with pictures."""
