"""Many registrations at once: cases from a table, their runs, their scores, one table of results."""
