"""The worker slots of a supervisor, and the processes that serve them."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from dataclasses import dataclass, field

from echo_server.metrics.counters import ROW_CELLS
from echo_server.processes.control import ControlSocket, Drain

# The time that a worker has to exit, in addition to its drain timeout.
GRACE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A worker process. All times are in seconds of the monotonic clock.

    Attributes:
        slot: the slot that it serves.
        process: the operating system's process.
        control: the supervisor's end of the control socket.
        row: the number of its row in the table of counters.
        drain_timeout: its drain timeout in seconds; a worker reports its own when it starts to
            serve.
        deadline: when to kill it unless it serves, or has exited, before; None for no deadline.
        served_at: when it started to serve; None if it does not serve yet.
        draining: True if it has been sent the command to drain.
        refused_at: when it last refused to serve the listeners of another slot.
    """

    slot: Slot
    process: subprocess.Popen[bytes]
    control: ControlSocket
    row: int
    drain_timeout: float
    deadline: float | None
    served_at: float | None = None
    draining: bool = False
    refused_at: float = -math.inf

    @property
    def serves(self) -> bool:
        """True if it serves its listeners, and neither drains nor has exited."""
        return self.served_at is not None and not self.draining and self.process.returncode is None

    @property
    def exit_reason(self) -> str:
        """The exit code of a process that has exited, or the signal that killed it."""
        code: int = self.process.returncode
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            # Most real-time signals (signal(7)) have no name.
            return f"signal {-code}"

    def drain(self, *, final: bool) -> None:
        """Send the command to drain and exit; for `final` see `Drain`."""
        if self.draining:
            return
        self.draining = True
        # The result is ignored: a worker that cannot receive the command is killed at its deadline.
        self.control.send(Drain(final))
        self.deadline = time.monotonic() + self.drain_timeout + GRACE_SECONDS


@dataclass(slots=True, eq=False)
class Slot:
    """A slot for one worker, with its own listeners. Times are in seconds of the monotonic clock.

    Attributes:
        number: the number of the slot, from 0.
        current: the worker that serves the slot, or is starting to; None if there is none.
        replacement: a starting worker that will replace the current one in a rolling restart.
        substitute: the worker of another slot that serves this slot's listeners temporarily.
        substitute_at: when to look for a substitute again after one has refused; None otherwise.
        start_at: when to start the next worker after one has died; None if none is to be started.
        failures: the number of failed workers in a row.
        restarts: the number of workers started because another one had died.
        ended: the sums of the counters of the processes that have exited.
    """

    number: int
    current: WorkerProcess | None = None
    replacement: WorkerProcess | None = None
    substitute: WorkerProcess | None = None
    substitute_at: float | None = None
    start_at: float | None = None
    failures: int = 0
    restarts: int = 0
    ended: list[int] = field(default_factory=lambda: [0] * ROW_CELLS)

    @property
    def is_up(self) -> bool:
        """True if the slot's own worker serves it."""
        return self.current is not None and self.current.serves

    @property
    def is_served(self) -> bool:
        """True if the slot's own worker or a substitute serves its listeners."""
        return self.is_up or (self.substitute is not None and self.substitute.serves)
