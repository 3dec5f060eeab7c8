"""The page for browsers: its charts, tables and styles."""
