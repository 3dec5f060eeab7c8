"""Running a test: the controller, its generators, and what they report."""
