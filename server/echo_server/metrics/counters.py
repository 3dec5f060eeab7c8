"""The server's counters, in memory shared by all its processes.

Each worker process has its own row of counters, and is the only one to write it while it runs;
totals are sums of the rows. The counts of a process therefore outlive it, and a limit over all
processes needs no messages between them.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from echo_server.errors import SharedMemoryError

# Upper bounds, in seconds, of the histogram buckets of hub lag; a last bucket has no bound.
LAG_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Counter(IntEnum):
    """The counters of a row. They only increase while its process runs."""

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
    # Over the limit per address, which was checked after the handshake had given the address.
    CLOSED_REJECTED = auto()
    CLOSED_SERVER_STOPPED = auto()
    CLOSED_WORKER_DIED = auto()
    RECEIVED_BYTES = auto()
    SENT_BYTES = auto()
    READS = auto()
    # Send calls in addition to the one that follows each read.
    EXTRA_WRITES = auto()
    DATAGRAMS_RECEIVED = auto()
    DATAGRAMS_SENT = auto()
    DROPPED_LOW_PORT = auto()
    DROPPED_OWN_PORT = auto()
    DROPPED_SEND_FAILED = auto()
    # To be delayed by a fault, but too many bytes were already being delayed.
    DROPPED_FAULT_BUFFER_FULL = auto()
    # Still delayed by a fault when the server stopped.
    DROPPED_SERVER_STOPPED = auto()
    # Dropped by the kernel, which reports their number.
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
    # The first of len(LAG_BOUNDS) + 1 cells, one per bucket.
    HUB_LAG_BUCKETS = auto()

    @property
    def label(self) -> str:
        """The label in the metric of the group: `end_of_stream` for `CLOSED_END_OF_STREAM`."""
        return self.name.partition("_")[2].lower()


REJECTED = tuple(counter for counter in Counter if counter.name.startswith("REJECTED_"))
CLOSED = tuple(counter for counter in Counter if counter.name.startswith("CLOSED_"))
DROPPED = tuple(counter for counter in Counter if counter.name.startswith("DROPPED_"))
FAULTS = tuple(counter for counter in Counter if counter.name.startswith("FAULT_"))
ROW_CELLS = Counter.HUB_LAG_BUCKETS + len(LAG_BOUNDS) + 1

# The maximum number of worker processes at the same time, including those that still drain.
CAPACITY = 2048
_CELL_BYTES = 8


class CounterTable:
    """A row of 64-bit counters for each worker process, in shared memory.

    The cells are: the number of rows ever used, the number of reserved connections of each row, and
    the rows. Rows that have never been used take no memory.

    Args:
        descriptor: the descriptor of a file that `create` made, here or in the parent process.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        cells = memoryview(mmap.mmap(descriptor, 0)).cast("q")
        self._used = cells[:1]
        self._reserved = cells[1 : 1 + CAPACITY]
        self._rows = cells[1 + CAPACITY :]

    @classmethod
    def create(cls) -> CounterTable:
        """Create an empty table in a new file, whose descriptor a child process can inherit.

        Raises:
            SharedMemoryError: neither memory nor space in a temporary directory is available.
        """
        try:
            return cls(_shared_file((1 + CAPACITY * (1 + ROW_CELLS)) * _CELL_BYTES))
        except OSError as error:
            raise SharedMemoryError(
                f"cannot allocate shared memory for the counters: {error.strerror}"
            ) from error

    def row(self, number: int) -> Counters:
        """Return a row, numbered from 0. The counters of a new row are zero.

        Raises:
            IndexError: the number is not below `CAPACITY`.
        """
        if not 0 <= number < CAPACITY:
            raise IndexError(f"row {number} of {CAPACITY}")
        if self._used[0] <= number:
            # Only the creator of the table writes this: a supervisor calls before its worker.
            self._used[0] = number + 1
        start = number * ROW_CELLS
        return Counters(
            self, self._rows[start : start + ROW_CELLS], self._reserved[number : number + 1]
        )

    def reserved(self) -> int:
        """Return the number of connections reserved by all processes."""
        return sum(self._reserved[: self._used[0]])


def _shared_file(size: int) -> int:
    """Return the descriptor of a file in memory or, failing that, of an unnamed temporary file."""
    try:
        descriptor = os.memfd_create("echo-server-counters")
        os.ftruncate(descriptor, size)
    except (AttributeError, OSError):
        # Python or the system has no memfd_create (ENOSYS), or a container denies it (EPERM).
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        # If the disk were full at a later write to the mapping, SIGBUS would kill the process.
        os.posix_fallocate(descriptor, 0, size)
    return descriptor


class Counters:
    """The counters of one process.

    Attributes:
        cells: the value of each `Counter`, followed by the remaining buckets of hub lag.
        reserved: a single cell, the number of reserved connections: those that are open, and those
            that are being accepted.
        table: the table, with the rows of the other processes.
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
        """Set all counters to zero, so that another process can use the row."""
        for cell in range(ROW_CELLS):
            self.cells[cell] = 0
        self.reserved[0] = 0


def open_connections(cells: Sequence[int]) -> int:
    """Return the number of open connections, given the cells of a process, or sums of them."""
    return cells[Counter.ACCEPTED] - sum(cells[counter] for counter in CLOSED)


def snapshot(rows: Iterable[Counters]) -> list[list[int]]:
    """Return the cells of several processes, which may be counting at the same time.

    The total of open connections is never higher than it was at some instant: the accepted
    connections of all processes are read before the closed ones. A connection that is closed
    meanwhile is omitted, and not counted in addition to one that has replaced it.
    """
    rows = list(rows)
    accepted = [row.cells[Counter.ACCEPTED] for row in rows]
    read = [row.cells.tolist() for row in rows]
    for cells, before in zip(read, accepted, strict=True):
        cells[Counter.ACCEPTED] = max(before, sum(cells[counter] for counter in CLOSED))
    return read


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """The figures of a worker slot, over all processes that it has had.

    Attributes:
        slot: the number of the slot, from 0.
        pid: the process ID of the current worker; None if there is none.
        up: True if the slot's own worker serves its listeners, and not a substitute.
        restarts: how many times a worker was started because another one had died.
        cells: the sums of the counters of all processes.
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
