"""Latency histograms: recorded in nanoseconds, kept as HdrHistogram counts, read in microseconds.

Latencies are recorded in batches, so that the hot path only appends to an array. The layout of the
counts, the encoding and the three significant digits are HdrHistogram's (G. Tene).
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram

Integers = np.ndarray[Any, np.dtype[np.int64]]
# Indices and values of the nonzero counts, the values' dtype, and the other figures.
_State = tuple[bytes, bytes, str, tuple[int, int, int, int]]

# Exceptions that the library raises for data that is not a histogram.
_DECODING_ERRORS = (
    TypeError,
    ValueError,
    IndexError,
    RuntimeError,
    HdrCookieException,
    HdrLengthException,
    zlib.error,
)

HIGHEST_NS = 3_600_000_000_000
SIGNIFICANT_DIGITS = 3

# The library's layout of the counts, shared by all histograms here.
_LAYOUT = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
_MASK: int = _LAYOUT.sub_bucket_mask
_HALF: int = _LAYOUT.sub_bucket_half_count_magnitude
_HALF_COUNT: int = _LAYOUT.sub_bucket_half_count


class LatencyHistogram:
    """Counts of latencies between 1 ns and 1 h, exact to three significant digits.

    Attributes:
        count: number of recorded latencies.
        clamped: number of latencies above one hour, which are counted as one hour.
        max_ns: the longest latency, exact.
        sum_ns: the sum of all latencies, exact.
    """

    def __init__(self) -> None:
        # Only as many as the longest latency needs: most histograms have few and short latencies.
        self._counts: Integers = np.zeros(0, dtype=np.int64)
        self.count = 0
        self.clamped = 0
        self.max_ns = 0
        self.sum_ns = 0

    def record(self, nanoseconds: array[int]) -> None:
        """Add a batch of latencies in nanoseconds."""
        self.record_values(np.frombuffer(nanoseconds, dtype=np.int64))

    def record_values(self, values: Integers, counts: Integers | None = None) -> None:
        """Add a batch of latencies.

        Args:
            values: the latencies in nanoseconds.
            counts: how many times each one was measured; None for once.
        """
        if not len(values):
            return
        highest = int(values.max())
        self.count += len(values) if counts is None else int(counts.sum())
        self.sum_ns += int(values.sum() if counts is None else values @ counts)
        self.max_ns = max(self.max_ns, highest)
        if highest > HIGHEST_NS:
            # The library silently drops values out of range; they are the tail, so keep them.
            above = values > HIGHEST_NS
            self.clamped += int(above.sum() if counts is None else counts[above].sum())
            values = np.minimum(values, HIGHEST_NS)
        # With weights, bincount returns doubles, which are exact up to 2**53.
        self._add(np.bincount(_index(np.maximum(values, 1)), counts).astype(np.int64))

    def merge(self, other: LatencyHistogram) -> None:
        """Add all latencies of another histogram."""
        if not other.count:
            return
        self._add(other._counts)
        self.count += other.count
        self.clamped += other.clamped
        self.max_ns = max(self.max_ns, other.max_ns)
        self.sum_ns += other.sum_ns

    @property
    def mean_us(self) -> float:
        """The mean in microseconds, from the sum and not from the counts; 0 if empty."""
        return self.sum_ns / self.count / 1e3 if self.count else 0.0

    @property
    def max_us(self) -> float:
        """The longest latency in microseconds."""
        return self.max_ns / 1e3

    def percentiles_us(self, percentiles: Sequence[float]) -> list[float]:
        """Return the latencies at these percentiles in microseconds; 0 if there are none.

        The rank is rounded up, as in HdrHistogram since 2.1.10: the 99th percentile of 60 latencies
        is the longest.
        """
        if not self.count:
            return [0.0] * len(percentiles)
        running = np.cumsum(self._counts)
        targets = [_rank(percentile, self.count) for percentile in percentiles]
        found = []
        for index in np.searchsorted(running, targets):
            value = _LAYOUT.get_value_from_index(int(index))
            found.append(min(_LAYOUT.get_highest_equivalent_value(value), self.max_ns) / 1e3)
        return found

    def count_up_to(self, bounds: Sequence[int]) -> list[int]:
        """Return the number of latencies up to each bound in nanoseconds, to three digits."""
        running = np.concatenate(([0], np.cumsum(self._counts)))
        indices = _index(np.clip(np.array(bounds, dtype=np.int64), 1, HIGHEST_NS))
        found: list[int] = running[np.minimum(indices + 1, len(self._counts))].tolist()
        return found

    def buckets_ms(self) -> Iterator[tuple[float, int]]:
        """Return the upper end in milliseconds and the count of each bucket that is not empty."""
        filled = np.flatnonzero(self._counts)
        return zip(map(_highest_ms, filled.tolist()), self._counts[filled].tolist(), strict=True)

    def pack(self) -> tuple[bytes, bytes, str, tuple[int, int, int, int]]:
        """Return the state of the histogram in types that any serializer supports."""
        return self.__getstate__()

    @classmethod
    def unpack(cls, packed: Sequence[Any]) -> LatencyHistogram:
        """Return the histogram that `pack` has packed."""
        histogram = cls()
        indices, counts, dtype, figures = packed
        histogram.__setstate__((indices, counts, dtype, tuple(figures)))
        return histogram

    def encode(self) -> str:
        """Return the HdrHistogram V2 compressed encoding in base64; its unit is nanoseconds."""
        hdr = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
        np.frombuffer(hdr.counts, dtype=np.int64)[: len(self._counts)] = self._counts
        filled = np.flatnonzero(self._counts)
        # The library encodes only the range of values set here.
        hdr.set_internal_tacking_values(
            *((int(filled[0]), int(filled[-1])) if self.count else (-1, -1)), self.count
        )
        encoded: bytes = hdr.encode()
        return encoded.decode("ascii")

    @classmethod
    def decode(cls, encoded: str) -> LatencyHistogram:
        """Decode a text that `encode` returned; mean and maximum are only as exact as the buckets.

        Raises:
            ValueError: the text is not such an encoding, or has other bounds.
        """
        try:
            hdr = HdrHistogram.decode(encoded)
        except _DECODING_ERRORS as error:
            raise ValueError("not an encoded HdrHistogram") from error
        if (hdr.significant_figures, hdr.counts_len) != (SIGNIFICANT_DIGITS, _LAYOUT.counts_len):
            raise ValueError("an HdrHistogram with other bounds")
        decoded = cls()
        counts = np.array(hdr.counts[: hdr.counts_len], dtype=np.int64)
        decoded._add(np.trim_zeros(counts, "b"))
        decoded.count = int(counts.sum())
        decoded.max_ns = int(hdr.get_max_value()) if decoded.count else 0
        decoded.sum_ns = int(hdr.get_mean_value() * decoded.count) if decoded.count else 0
        return decoded

    def _add(self, counts: Integers) -> None:
        if len(counts) > len(self._counts):
            longer = np.zeros(len(counts), dtype=np.int64)
            longer[: len(self._counts)] = self._counts
            self._counts = longer
        self._counts[: len(counts)] += counts

    def __getstate__(self) -> _State:
        # Compact, because a generator sends no messages while it writes this to its pipe.
        filled = np.flatnonzero(self._counts)
        counts = self._counts[filled]
        dtype = np.min_scalar_type(int(counts.max(initial=0))).char
        return (
            filled.astype(np.uint16).tobytes(),
            counts.astype(dtype).tobytes(),
            dtype,
            (self.count, self.clamped, self.max_ns, self.sum_ns),
        )

    def __setstate__(self, state: _State) -> None:
        LatencyHistogram.__init__(self)
        indices, counts, dtype, figures = state
        filled = np.frombuffer(indices, dtype=np.uint16)
        if len(filled):
            self._counts = np.zeros(int(filled[-1]) + 1, dtype=np.int64)
            self._counts[filled] = np.frombuffer(counts, dtype=dtype)
        self.count, self.clamped, self.max_ns, self.sum_ns = figures


def _rank(percentile: float, count: int) -> int:
    """Return the rank of the latency at a percentile, from 1."""
    # As in the Java library: a rounding error must not lead to the next whole number.
    return max(1, math.ceil(math.nextafter(percentile, -math.inf) * count / 100))


@cache
def _highest_ms(index: int) -> float:
    """Return the longest latency that is counted at an index, in milliseconds."""
    value = _LAYOUT.get_highest_equivalent_value(_LAYOUT.get_value_from_index(index))
    return float(value) / 1e6


def _index(values: Integers) -> Integers:
    """Return the index at which the library counts each value (`get_counts_array_index`)."""
    # A double holds all integers below 2**53 exactly, and the bit length is in its exponent.
    exponent = ((values | _MASK).astype(np.float64).view(np.int64) >> 52) - 1023
    bucket = exponent - _HALF
    index: Integers = ((bucket + 1) << _HALF) + (values >> bucket) - _HALF_COUNT
    return index
