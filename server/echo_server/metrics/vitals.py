"""Periodic measurement of this process: hub lag, processor time and dropped log lines."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable

import structlog
from gevent.hub import get_hub

from echo_core.logs import DrainedStream
from echo_server.metrics.counters import LAG_BOUNDS, Counter, Counters

log = structlog.get_logger()

PERIOD_SECONDS = 0.25


class Vitals:
    """A periodic measurement, four times per second, of hub lag and resource usage.

    Hub lag is the lateness of a timer: the time that a ready descriptor may have to wait until the
    hub runs its callback. It includes the lateness of libev's own timers, up to a millisecond.

    Args:
        counters: the counters of this process, which receive the measurements.
        stream: the log stream, whose dropped lines are counted.

    Attributes:
        probes: functions that are called with each measurement, to update further counters.
    """

    def __init__(self, counters: Counters, stream: DrainedStream) -> None:
        self.probes: list[Callable[[], None]] = []
        self._counters = counters
        self._stream = stream
        self._due = time.monotonic() + PERIOD_SECONDS
        self._timer = get_hub().loop.timer(PERIOD_SECONDS, PERIOD_SECONDS)
        self._timer.start(self._on_tick, update=True)

    def close(self) -> None:
        """Stop measuring, after a last sample of resource usage."""
        self._timer.stop()
        self._timer.close()
        self._sample()

    def _on_tick(self) -> None:
        # An exception that escapes from a hub callback would stop its watcher for good.
        try:
            now = time.monotonic()
            late = max(0.0, now - self._due)
            # As in libev, missed ticks are skipped.
            self._due = max(now, self._due + PERIOD_SECONDS)
            self._counters.add(Counter.HUB_LAG_NANOSECONDS, int(late * 1e9))
            self._counters.cells[Counter.HUB_LAG_BUCKETS + bisect_left(LAG_BOUNDS, late)] += 1
            self._sample()
        except Exception:
            log.exception("vitals failed")

    def _sample(self) -> None:
        cells = self._counters.cells
        cells[Counter.CPU_NANOSECONDS] = time.process_time_ns()
        cells[Counter.LOG_LINES_DROPPED] = self._stream.dropped
        for probe in self.probes:
            probe()
