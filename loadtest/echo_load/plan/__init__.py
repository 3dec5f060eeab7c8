"""What a test is to do."""
