"""Statistics of round trips: percentiles and jitter."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from echo_core.units import format_time


class Jitter:
    """The jitter of round trips (RFC 3550, section 6.4.1), as the load tester defines it.

    The estimate changes by a sixteenth of its distance from the difference of two consecutive
    round trips of a connection. The jitter is the mean of the estimates after each round trip.
    """

    def __init__(self) -> None:
        self._before = 0
        self._estimate = 0
        self._total = 0
        self._count = 0

    def add(self, nanoseconds: int) -> int | None:
        """Add the next round trip; return the new estimate, None for the first of a connection."""
        before, self._before = self._before, nanoseconds
        if not before:
            return None
        self._estimate += (abs(nanoseconds - before) - self._estimate) >> 4
        self._total += self._estimate
        self._count += 1
        return self._estimate

    def begin_connection(self) -> None:
        """Compare the next round trip with none before: it is the first of a connection."""
        self._before = self._estimate = 0

    @property
    def nanoseconds(self) -> float | None:
        """The jitter; None if no connection had two round trips."""
        return self._total / self._count if self._count else None


def percentile(ordered: Sequence[int], percentage: int) -> int:
    """Return a percentile of values in ascending order, of which there is at least one.

    The rank is rounded up: the 99th percentile of 60 values is the highest.
    """
    return ordered[-(-percentage * len(ordered) // 100) - 1]


def summary(nanoseconds: array[int]) -> str:
    """Return the lowest, the percentiles and the highest round trip as text; "" if empty."""
    if not nanoseconds:
        return ""
    ordered = sorted(nanoseconds)
    figures = {
        "min": ordered[0],
        **{f"p{one}": percentile(ordered, one) for one in (50, 90, 99)},
        "max": ordered[-1],
    }
    return "round trip " + ", ".join(
        f"{name} {format_time(value / 1e9)}" for name, value in figures.items()
    )
