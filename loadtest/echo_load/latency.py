"""Latencies: nanoseconds in, HdrHistogram counts kept, microseconds out.

Recording is done in batches: an array of nanoseconds becomes counts in one go, so that the hot
path does nothing but append to an array (G. Tene, HdrHistogram; its counts layout is kept, and so
are its encoding and its three significant digits).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

Integers = np.ndarray[Any, np.dtype[np.int64]]

HIGHEST_NS = 3_600_000_000_000
SIGNIFICANT_DIGITS = 3


class LatencyHistogram:
    """Counts of latencies between 1 ns and 1 h, exact to three digits.

    Attributes:
        count: latencies recorded.
        clamped: of these, how many were longer than an hour and counted as one hour.
        max_ns: the longest, exactly.
    """

    def __init__(self) -> None:
        self._hdr = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
        self._counts: Integers = np.frombuffer(self._hdr.counts, dtype=np.int64)
        self.count = 0
        self.clamped = 0
        self.max_ns = 0
        self._sum_ns = 0

    def record(self, nanoseconds: array[int]) -> None:
        """Add a batch of latencies."""
        if not nanoseconds:
            return
        self._record(np.frombuffer(nanoseconds, dtype=np.int64))

    def _record(self, values: Integers) -> None:
        self.count += len(values)
        self._sum_ns += int(values.sum())
        self.max_ns = max(self.max_ns, int(values.max()))
        # The library drops what is out of range without a word; it is the tail, so keep it.
        self.clamped += int((values > HIGHEST_NS).sum())
        clamped = np.clip(values, 1, HIGHEST_NS)
        self._counts += np.bincount(self._index(clamped), minlength=len(self._counts))

    def merge(self, other: LatencyHistogram) -> None:
        """Add everything that another histogram has recorded."""
        self._counts += other._counts
        self.count += other.count
        self.clamped += other.clamped
        self.max_ns = max(self.max_ns, other.max_ns)
        self._sum_ns += other._sum_ns

    @property
    def mean_us(self) -> float:
        """The mean in microseconds, from the sum and not from the counts; 0 if empty."""
        return self._sum_ns / self.count / 1e3 if self.count else 0.0

    @property
    def max_us(self) -> float:
        """The longest in microseconds."""
        return self.max_ns / 1e3

    def percentiles_us(self, percentiles: Sequence[float]) -> list[float]:
        """The latencies in microseconds that so many percent do not exceed; 0 if empty."""
        if not self.count:
            return [0.0] * len(percentiles)
        running = np.cumsum(self._counts)
        targets = [max(1, int(percentile / 100 * self.count + 0.5)) for percentile in percentiles]
        found = []
        for index in np.searchsorted(running, targets):
            value = self._hdr.get_value_from_index(int(index))
            found.append(min(self._hdr.get_highest_equivalent_value(value), self.max_ns) / 1e3)
        return found

    def encode(self) -> str:
        """The HdrHistogram V2 compressed encoding in base64, in nanoseconds."""
        hdr = self._hdr
        filled = np.flatnonzero(self._counts)
        # The library encodes as far as what it believes to be the longest.
        hdr.set_internal_tacking_values(
            *((int(filled[0]), int(filled[-1])) if self.count else (-1, -1)), self.count
        )
        encoded: bytes = hdr.encode()
        return encoded.decode("ascii")

    def _index(self, values: Integers) -> Integers:
        """Where the library counts each value: its `get_counts_array_index`, for arrays."""
        hdr = self._hdr
        half = hdr.sub_bucket_half_count_magnitude
        # The exponent is the bit length: exact, as a double holds all integers below 2**53.
        bit_length = np.frexp((values | hdr.sub_bucket_mask).astype(np.float64))[1]
        bucket = bit_length.astype(np.int64) - (half + 1)
        index: Integers = ((bucket + 1) << half) + (values >> bucket) - hdr.sub_bucket_half_count
        return index

    def __getstate__(self) -> dict[str, Any]:
        filled = np.flatnonzero(self._counts)
        return {
            "filled": filled.astype(np.int32),
            "counts": self._counts[filled],
            "figures": (self.count, self.clamped, self.max_ns, self._sum_ns),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        LatencyHistogram.__init__(self)
        self._counts[state["filled"]] = state["counts"]
        self.count, self.clamped, self.max_ns, self._sum_ns = state["figures"]


def by_second(
    nanoseconds: array[int], instants_ns: array[int], begin_ns: int
) -> dict[int, LatencyHistogram]:
    """Record a batch of latencies by the second in which each ended.

    Args:
        nanoseconds: the latencies.
        instants_ns: when each of them ended.
        begin_ns: when second 0 began, on the same clock.
    """
    if not nanoseconds:
        return {}
    values = np.frombuffer(nanoseconds, dtype=np.int64)
    seconds = (np.frombuffer(instants_ns, dtype=np.int64) - begin_ns) // 1_000_000_000
    histograms = {}
    for second in np.unique(seconds):
        histograms[int(second)] = histogram = LatencyHistogram()
        histogram._record(values[seconds == second])  # noqa: SLF001  # of its own module
    return histograms
