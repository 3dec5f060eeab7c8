"""Reports of a test, on the terminal, in files and to Prometheus."""
