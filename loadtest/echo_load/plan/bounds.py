"""Bounds and defaults of numeric fields of a plan, shared by the options of the command line."""

MOST_CONNECTIONS = 2_000_000
MOST_MESSAGES = 10**15
# Connections that `echo-load watch` keeps open, with a thread for each.
MOST_WATCHED = 1000
MOST_PROCESSES = 1024
MOST_PIPELINED = 100_000
MOST_REPEATS = 1000
# Bytes.
LARGEST_PAYLOAD = 64 << 20
# Relative changes between results up to this count as unchanged.
DEFAULT_MARGIN = 0.05
# Seconds: ten years, which a counter of nanoseconds holds many times over.
LONGEST_TEST = 10 * 365 * 24 * 3600.0
# Seconds: no clock of a test measures less.
SHORTEST_SECONDS = 1e-6
# Messages or connections per second.
HIGHEST_RATE = 100e6
# One in eleven days, which is longer than any interval of a command. Generators share a rate, and
# the intervals of their parts have to fit into a counter of nanoseconds.
LOWEST_RATE = 1e-6
