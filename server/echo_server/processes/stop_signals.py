"""The signals that stop a process, and the recognition of a second one."""

from __future__ import annotations

import signal
import time

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Signals that follow the first within so many seconds are repetitions of it.
REPEAT_SECONDS = 1.0


class StopSignals:
    """Distinguishes a second stop signal from a repetition of the first.

    systemd signals every process of a service, pkill(1) each that has the name, and timeout(1) its
    child and then the child's group: one wish to stop may arrive more than once.
    """

    def __init__(self) -> None:
        self._first_at: float | None = None

    def is_second(self) -> bool:
        """Record a signal; return True if it came too late to be a repetition of the first."""
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
        return now - self._first_at >= REPEAT_SECONDS


def ignore_stop_signals() -> None:
    """Ignore the stop signals, in a process whose exit code is already decided.

    While an interpreter ends it has no handlers any more, and a signal would be its death.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
