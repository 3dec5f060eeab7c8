"""Addition of an engine's measurements to locust's statistics.

Locust itself adds requests one by one, which would take longer than the requests.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from locust.stats import StatsEntry, StatsError

from echo_client.errors import CONNECTING_KINDS
from echo_load.engines.recorder import Snapshot
from echo_load.measure.counts import Counts
from echo_load.measure.histogram import LatencyHistogram
from echo_load.swarm.client import EchoFailure
from echo_load.swarm.histograms import Histograms, bucket

# The cache is bounded by the number of buckets of a histogram.
_bucket = cache(bucket)


def add_measurements(
    environment: Any, histograms: Histograms, method: str, gained: Counts, measured: Snapshot
) -> None:
    """Add the measurements since the last call to the statistics.

    Args:
        environment: locust's environment.
        histograms: histograms of that environment.
        method: request type in locust's tables.
        gained: increase of the engine's counts.
        measured: the engine's distributions.
    """
    messages, connects = LatencyHistogram(), LatencyHistogram()
    for times in measured.response.values():
        messages.merge(times)
    for one in measured.measured.values():
        connects.merge(one.connect)
    for name, times, length in (
        ("connect", connects, 0),
        ("message", messages, gained.bytes_received),
    ):
        if times.count:
            histograms.merge(method, name, times)
            for entry in (environment.stats.total, environment.stats.get(name, method)):
                _add(entry, times, length)
    for kind, count in gained.errors.items():
        # A count falls when a datagram that counted as lost arrives late.
        if count > 0:
            name = "connect" if kind in CONNECTING_KINDS else "message"
            _fail(environment.stats, method, name, EchoFailure(kind), count)
    # A wrong reply has a response time, and was already counted as a request above.
    _count_failed_requests(environment.stats, method, "message", -gained.wrong)


def _add(entry: StatsEntry, times: LatencyHistogram, length: int) -> None:
    """Add successful requests to an entry, as `StatsEntry.log` adds a single one.

    Args:
        entry: the entry.
        times: response times of the requests.
        length: size of all replies in bytes.
    """
    now = time.time()
    second = int(now)
    if entry.use_response_times_cache and second > int(entry.last_request_timestamp or second):
        entry._cache_response_times(second - 1)  # noqa: SLF001  # as log does
    entry.num_requests += times.count
    entry.num_reqs_per_sec[second] += times.count
    entry.last_request_timestamp = now
    entry.total_response_time += times.sum_ns / 1e6  # type: ignore[assignment]  # it is milliseconds
    entry.total_content_length += length
    shortest = times.percentiles_us([0])[0] / 1e3
    least = entry.min_response_time
    entry.min_response_time = shortest if least is None else min(least, shortest)  # type: ignore[assignment]
    entry.max_response_time = max(entry.max_response_time, times.max_us / 1e3)  # type: ignore[assignment]
    for milliseconds, count in times.buckets_ms():
        entry.response_times[_bucket(milliseconds)] += count  # type: ignore[index]


def _count_failed_requests(stats: Any, method: str, name: str, count: int) -> None:
    """Add a number of requests without a response time."""
    if not count:
        return
    for entry in (stats.total, stats.get(name, method)):
        entry.num_requests += count
        entry.num_none_requests += count
        entry.num_reqs_per_sec[int(time.time())] += count


def _fail(stats: Any, method: str, name: str, failure: EchoFailure, count: int) -> None:
    """Add a number of requests that failed in the same way."""
    second = int(time.time())
    _count_failed_requests(stats, method, name, count)
    for entry in (stats.total, stats.get(name, method)):
        entry.num_failures += count
        entry.num_fail_per_sec[second] += count
    key = StatsError.create_key(method, name, failure)
    error = stats.errors.get(key)
    if error is None:
        error = stats.errors[key] = StatsError(method, name, failure)
    error.occurred()
    error.occurrences += count - 1
