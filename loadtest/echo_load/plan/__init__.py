"""The plan of a test."""
