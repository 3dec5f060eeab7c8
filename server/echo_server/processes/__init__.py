"""The supervisor and its workers: start, replacement, drain."""
