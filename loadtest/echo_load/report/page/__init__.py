"""The page for browsers: its charts, its tables, and how it looks."""
