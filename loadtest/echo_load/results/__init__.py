"""What a test came to."""
