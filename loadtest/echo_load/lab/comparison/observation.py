"""The observation of processes during a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Literal

from echo_load.lab.usage import Footprint, Probe, Usage, footprint
from echo_load.runner.observer import Observer, Progress

# The part of a run in which usage is measured, from and to, as shares of its length.
_WINDOW_BEGINS = 0.1
_WINDOW_ENDS = 0.8
# A part that is shorter, as a share of the length of the run, is not measured.
_SHORTEST_WINDOW = 0.4
# When the footprint of a server is read, as a share of the length of the run: before connections
# without a reply are given up.
_FOOTPRINT_AT = 0.45


class UsageObserver(Observer):
    """An observer that reads what some processes use in a part of a run.

    It reads on the cores of the other side: beside a thousand threads it would wait for its turn
    until the run is over.

    Args:
        length: length of the run in seconds.
        cores: cores of the other side.
        processes: function that returns the ids of the processes.
        footprint_at: when their footprint is read: at the beginning, when all connections are open
            and nothing has been sent or recorded, or in the middle of the run.

    Attributes:
        length: the same.
        usage: what they used in the part.
        seconds: length of the part in seconds; 0 if its ends could not be read in time.
        footprint: their memory and sockets; None if they could not be read in time.
    """

    def __init__(
        self,
        length: float,
        cores: frozenset[int],
        processes: Callable[[], list[int]],
        footprint_at: Literal["beginning", "middle"],
    ) -> None:
        self.length = length
        self.usage = Usage(0.0, 0)
        self.seconds = 0.0
        self.footprint: Footprint | None = None
        self._cores = cores
        self._processes = processes
        self._footprint_at = footprint_at
        self._footprint_due = True
        self._before: tuple[float, Probe] | None = None
        self._usage_due = True

    @property
    def is_complete(self) -> bool:
        """Whether all was read in time."""
        return bool(self.seconds) and self.footprint is not None

    def progressed(self, progress: Progress) -> None:
        """Read what is due."""
        ends = time.monotonic() + self.length - progress.elapsed
        os.sched_setaffinity(0, self._cores)
        if progress.phase != "running" or not self._usage_due:
            return
        if self._footprint_due and self._is_time_for_footprint(progress.elapsed):
            self._footprint_due = False
            self._read_footprint(ends)
        if self._before is None and progress.elapsed >= self.length * _WINDOW_BEGINS:
            self._before = time.monotonic(), Probe(self._processes())
        elif self._before is not None and progress.elapsed >= self.length * _WINDOW_ENDS:
            self._usage_due = False
            self._read_usage(ends, *self._before)

    def _is_time_for_footprint(self, elapsed: float) -> bool:
        if self._footprint_at == "beginning":
            return not elapsed
        return elapsed >= self.length * _FOOTPRINT_AT

    def _read_usage(self, ends: float, began: float, before: Probe) -> None:
        found = Probe(self._processes()).since(before)
        read = time.monotonic()
        # Once the run has ended nothing is used, and of a short part little can be said.
        if read < ends and read - began >= self.length * _SHORTEST_WINDOW:
            self.usage, self.seconds = found, read - began

    def _read_footprint(self, ends: float) -> None:
        found = footprint(self._processes())
        # Once the run has ended its connections are closed.
        if time.monotonic() < ends:
            self.footprint = found
