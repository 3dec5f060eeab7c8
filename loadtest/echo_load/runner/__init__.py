"""The run of a test: the controller, its generators, and the sum of their measurements."""
