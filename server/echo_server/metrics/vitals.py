"""Measurements of this process: hub lag, processor time and dropped log lines."""

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
    """A periodic measurement, four times a second, of hub lag and resource usage.

    Hub lag is the time by which a timer comes too late: what anything that becomes ready may have
    to wait for its turn. libev's own timers are up to a millisecond late.

    Args:
        counters: where it is counted.
        stream: the log.

    Attributes:
        probes: further measurements, called each time.
    """

    def __init__(self, counters: Counters, stream: DrainedStream) -> None:
        self.probes: list[Callable[[], None]] = []
        self._counters = counters
        self._stream = stream
        self._due = time.monotonic() + PERIOD_SECONDS
        self._timer = get_hub().loop.timer(PERIOD_SECONDS, PERIOD_SECONDS)
        self._timer.start(self._on_tick, update=True)

    def close(self) -> None:
        """Take the last measurement."""
        self._timer.stop()
        self._timer.close()
        self._look()

    def _on_tick(self) -> None:
        # An exception that left a callback of the hub would stop its watcher for ever.
        try:
            now = time.monotonic()
            late = max(0.0, now - self._due)
            # As libev does: missed ticks are not made up for.
            self._due = max(now, self._due + PERIOD_SECONDS)
            self._counters.add(Counter.HUB_LAG_NANOSECONDS, int(late * 1e9))
            self._counters.cells[Counter.HUB_LAG_BUCKETS + bisect_left(LAG_BOUNDS, late)] += 1
            self._look()
        except Exception:
            log.exception("vitals failed")

    def _look(self) -> None:
        cells = self._counters.cells
        cells[Counter.CPU_NANOSECONDS] = time.process_time_ns()
        cells[Counter.LOG_LINES_DROPPED] = self._stream.dropped
        for look in self.probes:
            look()
