"""The server's counters, in memory shared by all its processes.

Each serving process has a row of counters of its own and is the only one to write it; whoever
wants a sum adds the rows up. What was counted is therefore still there when a process has died,
and a limit on all processes together needs no message between them.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from echo_server.errors import SharedMemoryError

# Upper bounds, in seconds, of the buckets that hub lag is counted in; the last is open.
LAG_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Counter(IntEnum):
    """The counters of a row; none decreases while its process runs."""

    @staticmethod
    def _generate_next_value_(_name: str, _start: int, count: int, _last: list[int]) -> int:
        return count

    ACCEPTED = auto()
    REJECTED_MAX_CONNECTIONS = auto()
    REJECTED_MAX_CONNECTIONS_PER_IP = auto()
    CLOSED_END_OF_STREAM = auto()
    CLOSED_RESET = auto()
    CLOSED_TIMED_OUT = auto()
    CLOSED_IDLE = auto()
    CLOSED_ERROR = auto()
    CLOSED_TLS_FAILED = auto()
    CLOSED_PROXY_HEADER_INVALID = auto()
    CLOSED_HANDSHAKE_TIMED_OUT = auto()
    CLOSED_FAULT_INJECTED = auto()
    # Turned away only after its handshake had told whose it was.
    CLOSED_REJECTED = auto()
    CLOSED_SERVER_STOPPED = auto()
    CLOSED_WORKER_DIED = auto()
    RECEIVED_BYTES = auto()
    SENT_BYTES = auto()
    READS = auto()
    # Sends beyond the one that follows each read.
    EXTRA_WRITES = auto()
    DATAGRAMS_RECEIVED = auto()
    DATAGRAMS_SENT = auto()
    DROPPED_LOW_PORT = auto()
    DROPPED_OWN_PORT = auto()
    DROPPED_SEND_FAILED = auto()
    # A fault would have held it, and held too much already.
    DROPPED_FAULT_BUFFER_FULL = auto()
    # A fault held it when the server stopped.
    DROPPED_SERVER_STOPPED = auto()
    # Not one by one but as the kernel says.
    DROPPED_QUEUE_FULL = auto()
    FAULT_DELAY = auto()
    FAULT_STALL = auto()
    FAULT_RESET = auto()
    FAULT_CLOSE = auto()
    FAULT_CORRUPT = auto()
    FAULT_TRUNCATE = auto()
    FAULT_DROP = auto()
    FAULT_DUPLICATE = auto()
    FAULT_REORDER = auto()
    ACCEPT_ERRORS = auto()
    LOG_LINES_DROPPED = auto()
    CPU_NANOSECONDS = auto()
    HUB_LAG_NANOSECONDS = auto()
    # The first of len(LAG_BOUNDS) + 1 cells.
    HUB_LAG_BUCKETS = auto()

    @property
    def label(self) -> str:
        """The label of a counter in its group: `end_of_stream` of `CLOSED_END_OF_STREAM`."""
        return self.name.partition("_")[2].lower()


REJECTED = tuple(counter for counter in Counter if counter.name.startswith("REJECTED_"))
CLOSED = tuple(counter for counter in Counter if counter.name.startswith("CLOSED_"))
DROPPED = tuple(counter for counter in Counter if counter.name.startswith("DROPPED_"))
FAULTS = tuple(counter for counter in Counter if counter.name.startswith("FAULT_"))
ROW_CELLS = Counter.HUB_LAG_BUCKETS + len(LAG_BOUNDS) + 1

# Processes that may run at once: workers, and those of earlier generations that still drain.
CAPACITY = 2048
_CELL_BYTES = 8


class CounterTable:
    """A row of 64-bit counters for each serving process, in a file in memory.

    Its cells: how many rows have ever been used, the connections that each has reserved, the rows.
    Rows beyond those in use are never touched and take no memory.

    Args:
        descriptor: the file, as `create` made it here or in the process that started this one.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        cells = memoryview(mmap.mmap(descriptor, 0)).cast("q")
        self._used = cells[:1]
        self._reserved = cells[1 : 1 + CAPACITY]
        self._rows = cells[1 + CAPACITY :]

    @classmethod
    def create(cls) -> CounterTable:
        """Create an empty table, whose descriptor a child process can inherit.

        Raises:
            SharedMemoryError: there is neither memory nor a temporary folder for it.
        """
        try:
            return cls(_shared_file((1 + CAPACITY * (1 + ROW_CELLS)) * _CELL_BYTES))
        except OSError as error:
            raise SharedMemoryError(
                f"cannot allocate shared memory for the counters: {error.strerror}"
            ) from error

    def row(self, number: int) -> Counters:
        """Return the row of a process, numbered from 0; its counters are initially zero.

        Raises:
            IndexError: there are only `CAPACITY` rows.
        """
        if not 0 <= number < CAPACITY:
            raise IndexError(f"row {number} of {CAPACITY}")
        if self._used[0] <= number:
            # Only where the table was made: a supervisor asks for a row before its worker does.
            self._used[0] = number + 1
        start = number * ROW_CELLS
        return Counters(
            self, self._rows[start : start + ROW_CELLS], self._reserved[number : number + 1]
        )

    def reserved(self) -> int:
        """The number of connections reserved by all processes together."""
        return sum(self._reserved[: self._used[0]])


def _shared_file(size: int) -> int:
    """Return a file in memory, or if that is unavailable an unnamed temporary file."""
    try:
        descriptor = os.memfd_create("echo-server-counters")
        os.ftruncate(descriptor, size)
    except (AttributeError, OSError):
        # Python or the system has no such call (ENOSYS), or a container denies it (EPERM).
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        # Space that the disk turned out not to have would kill whoever counts (SIGBUS).
        os.posix_fallocate(descriptor, 0, size)
    return descriptor


class Counters:
    """The counters of one process.

    Attributes:
        cells: a value for each `Counter`, then the other buckets of hub lag.
        reserved: one cell: connections that are reserved, of those that are open and of one
            that is about to be.
        table: where the counters of the other processes are.
    """

    __slots__ = ("cells", "reserved", "table")

    def __init__(self, table: CounterTable, cells: memoryview, reserved: memoryview) -> None:
        self.table = table
        self.cells = cells
        self.reserved = reserved

    def add(self, counter: Counter, amount: int = 1) -> None:
        """Add to a counter."""
        self.cells[counter] += amount

    def clear(self) -> None:
        """Set all counters to zero, before another process uses the row."""
        for cell in range(ROW_CELLS):
            self.cells[cell] = 0
        self.reserved[0] = 0


def open_connections(cells: Sequence[int]) -> int:
    """Return the number of open connections of one process, or of several in total."""
    return cells[Counter.ACCEPTED] - sum(cells[counter] for counter in CLOSED)


def read_together(rows: Iterable[Counters]) -> list[list[int]]:
    """Return the cells of several processes, read while they continue to count.

    No more connections appear as open than were open at one instant. The accepted ones are read
    first, of all processes: a connection that is closed while the rest is read is missing rather
    than counted beside the one that has taken its place.
    """
    rows = list(rows)
    accepted = [row.cells[Counter.ACCEPTED] for row in rows]
    read = [row.cells.tolist() for row in rows]
    for cells, before in zip(read, accepted, strict=True):
        cells[Counter.ACCEPTED] = max(before, sum(cells[counter] for counter in CLOSED))
    return read


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """The counts of one worker slot, over all the processes it has had.

    Attributes:
        slot: its number, from 0.
        pid: the process that serves now; None between two.
        up: whether that process serves, not another slot's in its place.
        restarts: how often its process was replaced because it had died.
        cells: the sums of its counters.
    """

    slot: int
    pid: int | None
    up: bool
    restarts: int
    cells: Sequence[int]

    @property
    def open(self) -> int:
        """The number of open connections."""
        return open_connections(self.cells)
