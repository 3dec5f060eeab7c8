"""Latency distributions as Prometheus histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echo_load.measure.histogram import LatencyHistogram

# Upper bounds of the buckets in nanoseconds, from 50 µs to 10 s.
_BOUNDS = [50_000, *(step * 10**exp for exp in range(5, 10) for step in (1, 2, 5)), 10**10]


@dataclass(frozen=True, slots=True)
class Exposed:
    """A snapshot of a distribution, as a histogram with a few cumulative buckets.

    Attributes:
        buckets: upper bound of each bucket in seconds, as text, and the number of latencies that do
            not exceed it.
        count: number of latencies.
        sum_seconds: sum of all latencies in seconds.
    """

    buckets: Sequence[tuple[str, float]]
    count: int
    sum_seconds: float

    @classmethod
    def of(cls, times: LatencyHistogram) -> Exposed:
        """Take a snapshot of a distribution."""
        bounds = [f"{bound / 1e9:g}" for bound in _BOUNDS]
        buckets = [*zip(bounds, times.count_up_to(_BOUNDS), strict=True), ("+Inf", times.count)]
        return cls(buckets, times.count, times.sum_ns / 1e9)
