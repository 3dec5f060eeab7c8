"""Bounds and defaults of numbers, which the options of the command line share."""

MOST_CONNECTIONS = 2_000_000
MOST_MESSAGES = 10**15
# Connections that `echo-load watch` keeps open, a thread each.
MOST_WATCHED = 1000
MOST_PROCESSES = 1024
MOST_PIPELINED = 100_000
MOST_REPEATS = 1000
# Relative changes smaller than this are of no interest.
DEFAULT_MARGIN = 0.05
# Messages or connections per second.
HIGHEST_RATE = 100e6
