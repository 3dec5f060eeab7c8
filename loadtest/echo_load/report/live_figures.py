"""The figures of a running test, as its live screen shows them."""

from __future__ import annotations

from typing import NamedTuple

from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.thresholds import written_time
from echo_load.runner.tally import Tally

# A second of which a generator has not yet sent its measurements is shown this long after its end.
_PATIENCE_SECONDS = 5


class Speed(NamedTuple):
    """How much a target answered in a second, and how fast.

    Attributes:
        messages: completed round trips per second.
        bytes_received: payload bytes received back per second.
        p50: median of the response time in seconds; None without a reply.
        p99: 99th percentile likewise.
    """

    messages: float = 0.0
    bytes_received: float = 0.0
    p50: float | None = None
    p99: float | None = None


class LiveFigures:
    """The figures of a tally while its test is running.

    Args:
        tally: the tally.

    Attributes:
        tally: the tally.
        speed: that of the last complete second of the test; before the first one is complete, of
            the time since the beginning.
        seconds: number of complete seconds.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.speed = Speed()
        self.seconds = 0

    @property
    def errors(self) -> int:
        """The number of failures so far."""
        return self.tally.counts.errors.total()

    @property
    def waits(self) -> bool:
        """True if messages were sent, and none was answered in the last second."""
        counts = self.tally.counts
        return self.speed.p99 is None and counts.bytes_sent > counts.bytes_received

    def update(self, elapsed: float) -> list[Speed]:
        """Update the figures.

        Args:
            elapsed: seconds since the first message was due.

        Returns:
            The speed in each second that has become complete since the last call.
        """
        tally, completed = self.tally, []
        # When generators end, they may be silent for longer than between two updates.
        until = max(tally.reported_until, elapsed - _PATIENCE_SECONDS)
        # What arrives after the end is not the speed of the test.
        until = min(until, elapsed, tally.timeline.seconds)
        while until >= self.seconds + 1:
            bytes_received = tally.counted_in(self.seconds).bytes_received
            completed.append(_speed(tally.times_of(self.seconds), bytes_received, 1.0))
            self.seconds += 1
        if completed:
            self.speed = completed[-1]
        elif not self.seconds:
            self.speed = _speed(tally.measured.response, tally.counts.bytes_received, tally.seconds)
        return completed


def _speed(times: LatencyHistogram, bytes_received: int, seconds: float) -> Speed:
    if seconds <= 0:
        return Speed()
    p50, p99 = times.percentiles_us([50, 99]) if times.count else (None, None)
    return Speed(times.count / seconds, bytes_received / seconds, _seconds(p50), _seconds(p99))


def _seconds(us: float | None) -> float | None:
    return None if us is None else us / 1e6


def time_or_dash(seconds: float | None) -> str:
    """Return a time with its unit; a dash if there is none."""
    return "-" if seconds is None else written_time(seconds)
