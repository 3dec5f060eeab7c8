"""The result of a test, its verdict, and comparisons."""
