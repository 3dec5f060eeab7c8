"""Updates of generators with known measurements."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from echo_load.engines.evidence import Found
from echo_load.engines.recorder import Snapshot
from echo_load.measure.counts import Counts
from echo_load.measure.histogram import LatencyHistogram


def snapshot(
    elapsed: float, seconds: Sequence[Sequence[int]] = (), *, first: int = 0, **counts: Any
) -> Snapshot:
    """Return a snapshot.

    Args:
        elapsed: seconds since the first stage began.
        seconds: response times in microseconds of the messages answered in each second.
        first: number of the first of these seconds.
        **counts: counts since the beginning.
    """
    response = {}
    for second, times in enumerate(seconds, first):
        response[0, second] = LatencyHistogram()
        response[0, second].record(array("q", [time * 1000 for time in times]))
    return Snapshot(0, elapsed, Counts(**counts), response, {}, {}, Found())
