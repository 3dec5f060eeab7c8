"""Who runs, and who replaces whom."""
