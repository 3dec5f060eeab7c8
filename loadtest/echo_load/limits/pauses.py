"""Times in which this process did not run: it was stopped, or got no processor."""

from __future__ import annotations

import itertools
import threading
import time
from typing import NamedTuple

_BEAT_SECONDS = 0.02
# Outages are to be found with this accuracy.
LEAST_PAUSE_SECONDS = 0.1


class LoggedPause(NamedTuple):
    """A time in which this process did not run, on the monotonic clock.

    Attributes:
        begin: when it was last seen to run.
        end: when it ran again.
    """

    begin: float
    end: float


class Heartbeat:
    """A thread that wakes up many times a second, to notice when it could not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._pauses: list[LoggedPause] = []
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to observe this process."""
        self._last = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    @property
    def pauses(self) -> list[LoggedPause]:
        """The pauses so far."""
        with self._lock:
            return list(self._pauses)

    def paused_since(self, instant: float) -> bool:
        """Return whether this process did not run for a time after an instant.

        Whichever thread runs first after a pause notices it.
        """
        self._beat()
        with self._lock:
            return bool(self._pauses) and self._pauses[-1].end > instant

    def paused_seconds(self, instant: float) -> float:
        """Return for how many seconds since an instant this process did not run."""
        self._beat()
        with self._lock:
            later = itertools.takewhile(lambda one: one.end > instant, reversed(self._pauses))
            return sum(one.end - max(one.begin, instant) for one in later)

    def _run(self) -> None:
        while not self._stopping.wait(_BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._last >= LEAST_PAUSE_SECONDS:
                self._pauses.append(LoggedPause(self._last, now))
            self._last = now
