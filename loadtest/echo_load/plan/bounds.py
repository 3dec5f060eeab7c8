"""Bounds of the numbers in a plan, which the options of the command line share."""

MOST_CONNECTIONS = 2_000_000
MOST_MESSAGES = 10**15
MOST_PROCESSES = 1024
MOST_PIPELINED = 100_000
MOST_REPEATS = 1000
# Messages or connections per second.
HIGHEST_RATE = 100e6
