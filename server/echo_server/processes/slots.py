"""The slots of a supervisor, and the processes that serve them."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from dataclasses import dataclass, field

from echo_server.metrics.counters import ROW_CELLS
from echo_server.processes.control import ControlSocket, Drain

# The time beyond the drain timeout that a worker has to exit.
GRACE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One serving process.

    Attributes:
        slot: the slot that it serves.
        process: its process.
        control: the supervisor's end of the control socket.
        row: its row in the table of counters.
        drain_timeout: seconds that it lets connections finish, as it said when it began to serve.
        deadline: when it is killed unless it serves or has ended by then; None is never.
        served_at: when it began to serve; None before.
        draining: it was told to drain.
        refused_at: when it last could not serve the listeners of another slot.
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
        """True if it accepts connections and has not been told to stop."""
        return self.served_at is not None and not self.draining and self.process.returncode is None

    @property
    def how_it_ended(self) -> str:
        """The exit code of a process that has ended, or the signal that killed it."""
        code: int = self.process.returncode
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            # A real-time signal (signal(7)): few of them have names.
            return f"signal {-code}"

    def drain(self, *, final: bool) -> None:
        """Tell it to drain and exit; for `final` see `Drain`."""
        if self.draining:
            return
        self.draining = True
        # One that hears nothing any more has a deadline too.
        self.control.send(Drain(final))
        self.deadline = time.monotonic() + self.drain_timeout + GRACE_SECONDS


@dataclass(slots=True, eq=False)
class Slot:
    """One of the workers to keep running, with listeners of its own.

    Attributes:
        number: from 0.
        current: the worker that serves, or will.
        replacement: the worker that is to take over from the current one and does not serve yet.
        substitute: the worker of another slot that serves this one's listeners meanwhile.
        substitute_at: when to look for a substitute again after one refused; None when not.
        start_at: when the next worker is due after one died; None when none is.
        failures: workers that died in a row.
        restarts: replacements of dead workers, ever.
        ended: the sums of the counters of the processes that have ended.
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
