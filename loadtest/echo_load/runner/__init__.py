"""The run of a test: the controller, its generators, and the sums of their measurements."""
