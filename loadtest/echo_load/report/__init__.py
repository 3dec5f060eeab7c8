"""Reports of a test, on the terminal and in files."""
