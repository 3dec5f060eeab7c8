"""The signals that stop a process, and the detection of a second one."""

from __future__ import annotations

import signal
import time

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Signals within this time after the first one are repetitions of it.
REPEAT_SECONDS = 1.0


class StopSignals:
    """The stop signals received so far, to tell a second one from a repetition of the first.

    A single request to stop may arrive more than once: systemd signals every process of a service,
    pkill(1) every process with the name, and timeout(1) its child and then the child's group.
    """

    def __init__(self) -> None:
        self._first_at: float | None = None

    def is_second(self) -> bool:
        """Record a signal; return True if it is not the first, nor a repetition of it."""
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
        return now - self._first_at >= REPEAT_SECONDS


def ignore_stop_signals() -> None:
    """Ignore the stop signals, in a process whose exit code is already decided.

    The interpreter restores the default handlers when it exits, so that a signal would kill it.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
