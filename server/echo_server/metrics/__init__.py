"""The server's counters, and the pages that show them."""
