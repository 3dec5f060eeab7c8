"""Questions that a single load test does not answer: limits, timeouts and outages."""
