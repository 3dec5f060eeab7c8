"""The samples of a comparison: what its runs measured at one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from echo_load.lab.comparison.workload import Run
from echo_load.lab.experiment import Measurement, Unit
from echo_load.lab.usage import Footprint

# With fewer connections the noise is larger than what a connection needs.
FEWEST_FOR_MEMORY = 1000
_UNITS: dict[str, Unit] = {
    "messages": "1/s",
    "p50": "s",
    "p99": "s",
    "CPU per echo": "s",
    "switches per echo": "",
    "memory per connection": "B",
    "served": "share",
    "client-bound": "share",
}


def memory_per_connection(loaded: Footprint, idle: Footprint) -> float | None:
    """Return the bytes that processes have in memory for each connection that they hold.

    This is what they have beyond their idle footprint, divided by the connections that they have
    accepted or opened, and not closed, at the same moment. A connection that waits in the kernel's
    backlog takes none of their memory and is not counted; one that has got no reply is counted.

    Args:
        loaded: footprint with connections.
        idle: footprint of the same server or clients without them.

    Returns:
        The bytes; None if there are no more sockets than in the idle footprint.
    """
    connections = loaded.sockets - idle.sockets
    if connections <= 0:
        return None
    return max(0.0, loaded.memory - idle.memory) / connections


class Samples:
    """The samples of one size, by variant and name: one of each repeat.

    Args:
        size: number of connections.

    Attributes:
        unable: variants that cannot be measured at this size here.
    """

    def __init__(self, size: int) -> None:
        self.unable: set[str] = set()
        self._size = size
        self._values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def add_run(self, variant: str, run: Run) -> Iterator[Measurement]:
        """Add what a run measured, and yield the measurements of its variant so far.

        Args:
            variant: what was measured.
            run: the run, whose usage was read in time.
        """
        result, observer, idle = run
        response = result.latency_us.response
        echoes = result.totals.messages_per_second * observer.seconds
        found = {
            "messages": result.totals.messages_per_second,
            "p50": response.p50 / 1e6,
            "p99": response.p99 / 1e6,
            "CPU per echo": observer.usage.cpu_seconds / echoes,
            "switches per echo": observer.usage.switches / echoes,
            "served": 1 - result.spread.starved / self._size,
        }
        loaded = observer.footprint
        if self._size >= FEWEST_FOR_MEMORY and idle is not None and loaded is not None:
            used = memory_per_connection(loaded, idle)
            if used is not None:
                found["memory per connection"] = used
        for name, value in found.items():
            yield self.add(variant, name, value)

    def add(self, variant: str, name: str, value: float) -> Measurement:
        """Add a value, and return the measurement so far."""
        values = self._values[variant, name]
        values.append(value)
        return Measurement(name, tuple(values), _UNITS[name], variant, self._size)
