"""Starting of worker processes, and allocation of their counter rows."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from echo_server.listeners import Listeners
from echo_server.metrics.counters import CAPACITY, CounterTable
from echo_server.processes.assignment import Assignment
from echo_server.processes.control import ControlSocket
from echo_server.processes.slots import Slot, WorkerProcess
from echo_server.processes.stop_signals import STOP_SIGNALS

# A worker that does not serve after this time has failed to start.
START_SECONDS = 60.0


class Launcher:
    """A launcher of worker processes, which run this same program on inherited listeners.

    Args:
        listeners: the listeners of all slots.
        table: the counters; each worker gets a row.
        drain_timeout: the drain timeout in seconds of a worker that has not reported its own.
    """

    def __init__(self, listeners: Listeners, table: CounterTable, drain_timeout: float) -> None:
        self._listeners = listeners
        self._table = table
        self._drain_timeout = drain_timeout
        self._free_rows = deque(range(CAPACITY))
        arguments = sys.orig_argv[1:]
        if arguments[-1] == "--":
            # After it, the option --worker would not be parsed as an option.
            arguments.pop()
        self._command = [sys.executable, *arguments]

    @property
    def capacity_left(self) -> int:
        """The number of workers that can still be started."""
        return len(self._free_rows)

    def start(self, slot: Slot) -> WorkerProcess:
        """Start a worker for a slot.

        Raises:
            OSError: the system cannot start another process.
        """
        ours, theirs = ControlSocket.pair()
        row = self._free_rows[0]
        self._table.row(row)
        assignment = Assignment(
            slot=slot.number,
            row=row,
            counters=self._table.descriptor,
            control=theirs.fileno(),
            listeners=tuple(
                (scheme, listener.fileno())
                for scheme, listener in self._listeners.for_slot(slot.number)
            ),
        )
        try:
            process = self._run(assignment)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._free_rows.popleft()
        deadline = time.monotonic() + START_SECONDS
        return WorkerProcess(slot, process, ours, row, self._drain_timeout, deadline)

    def release(self, worker: WorkerProcess) -> None:
        """Release the resources of a worker that has exited; its counters have been cleared."""
        self._free_rows.appendleft(worker.row)
        worker.control.close()

    def _run(self, assignment: Assignment) -> subprocess.Popen[bytes]:
        with _signals_blocked():
            return subprocess.Popen(
                [*self._command, "--worker", str(assignment)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=assignment.descriptors,
                # Ctrl-C must reach only the supervisor, which then drains the workers.
                process_group=0,
            )


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals in the processes that are started in the block.

    A process inherits the signal mask (fork(2), execve(2)). A signal that arrives before the
    process has installed its handlers stays pending until it unblocks the signals.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
