"""Histograms of a swarm's response times, because locust rounds its own to milliseconds.

Each worker sends its histograms to the master together with locust's statistics; the master merges
them.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from echo_load.measure.histogram import LatencyHistogram

# Field of the histograms in a worker's report to the master.
_FIELD = "echoswarm_histograms"
# Number of response times of a request that are recorded at once.
_BATCH = 4096
_SIGNIFICANT_DIGITS = 3

Key = tuple[str, str]


def bucket(milliseconds: float) -> float:
    """Round a response time in milliseconds to three significant digits.

    It replaces locust's own function, which rounds to two digits and whole milliseconds (locust's
    documentation, "Customizing response time bucketing").
    """
    if milliseconds <= 0:
        return 0.0
    digits = _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(milliseconds))
    return round(milliseconds, digits)


class Histograms:
    """Histograms of the response times of successful requests, by method and name.

    Args:
        environment: locust's environment, whose events are recorded.
    """

    def __init__(self, environment: Any) -> None:
        self._histograms: dict[Key, LatencyHistogram] = {}
        # Response times in nanoseconds that are not in the histograms yet.
        self._pending: defaultdict[Key, array[int]] = defaultdict(lambda: array("q"))
        events = environment.events
        events.request.add_listener(self._on_request)
        events.report_to_master.add_listener(self._on_report_to_master)
        events.worker_report.add_listener(self._on_worker_report)
        events.reset_stats.add_listener(self.clear)
        events.test_start.add_listener(self._on_test_start)

    def merge(self, method: str, name: str, times: LatencyHistogram) -> None:
        """Add response times that locust's events do not report."""
        self._of((method, name)).merge(times)

    def items(self) -> Iterator[tuple[Key, LatencyHistogram]]:
        """Return the histogram of each method and name, sorted by these."""
        self._record_pending()
        return iter(sorted(self._histograms.items()))

    def named(self, name: str) -> LatencyHistogram:
        """Return the histogram of all requests with this name."""
        together = LatencyHistogram()
        for (_, other), times in self.items():
            if other == name:
                together.merge(times)
        return together

    def clear(self, **_: object) -> None:
        """Remove all response times."""
        self._histograms.clear()
        self._pending.clear()

    def _on_test_start(self, **_: object) -> None:
        self.clear()

    def _on_request(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        exception: object = None,
        **_: object,
    ) -> None:
        # The time of a request that timed out would be the timeout.
        if response_time is None or exception is not None:
            return
        pending = self._pending[request_type, name]
        pending.append(int(response_time * 1e6))
        if len(pending) >= _BATCH:
            self._record_pending()

    def _on_report_to_master(self, data: dict[str, Any], **_: object) -> None:
        self._record_pending()
        data[_FIELD] = [[*key, times.pack()] for key, times in self._histograms.items()]
        self._histograms.clear()

    def _on_worker_report(self, data: dict[str, Any], **_: object) -> None:
        for method, name, packed in data.get(_FIELD, ()):
            self._of((method, name)).merge(LatencyHistogram.unpack(packed))

    def _record_pending(self) -> None:
        for key, pending in self._pending.items():
            self._of(key).record(pending)
        self._pending.clear()

    def _of(self, key: Key) -> LatencyHistogram:
        if key not in self._histograms:
            self._histograms[key] = LatencyHistogram()
        return self._histograms[key]


_by_environment: WeakKeyDictionary[Any, Histograms] = WeakKeyDictionary()


def histograms_of(environment: Any) -> Histograms:
    """Return the histograms of an environment; the first call creates them."""
    if environment not in _by_environment:
        _by_environment[environment] = Histograms(environment)
    return _by_environment[environment]
