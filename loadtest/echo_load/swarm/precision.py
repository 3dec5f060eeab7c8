"""Response times in microseconds, which locust rounds: histograms in the workers, merged.

A worker sends what it has measured since its last report along with locust's own statistics; the
master adds it up.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from echo_load.measure.histogram import LatencyHistogram

# The key of the histograms in a worker's report.
_FIELD = "echoswarm_histograms"
# How many times are kept before they are sorted.
_FOLD_AT = 4096
_SIGNIFICANT_DIGITS = 3

Key = tuple[str, str]


def bucket(milliseconds: float) -> float:
    """Round a response time as locust groups them: to three digits, below a millisecond too.

    Locust itself keeps two, and whole milliseconds (its documentation, "Customizing response time
    bucketing").
    """
    if milliseconds <= 0:
        return 0.0
    digits = _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(milliseconds))
    return round(milliseconds, digits)


class Precision:
    """The response times of all requests that did not fail, as exact as they were measured.

    Args:
        environment: locust's; its events are listened to.
    """

    def __init__(self, environment: Any) -> None:
        self._histograms: dict[Key, LatencyHistogram] = {}
        # Times that have not been sorted into the histograms yet.
        self._noted: defaultdict[Key, array[int]] = defaultdict(lambda: array("q"))
        events = environment.events
        events.request.add_listener(self._on_request)
        events.report_to_master.add_listener(self._on_report_to_master)
        events.worker_report.add_listener(self._on_worker_report)
        events.reset_stats.add_listener(self.clear)
        events.test_start.add_listener(self._on_test_start)

    def merge(self, method: str, name: str, times: LatencyHistogram) -> None:
        """Add times that were measured without locust."""
        self._of((method, name)).merge(times)

    def items(self) -> Iterator[tuple[Key, LatencyHistogram]]:
        """The times of each request, by method and name."""
        self._sort()
        return iter(sorted(self._histograms.items()))

    def named(self, name: str) -> LatencyHistogram:
        """The times of all requests with a name."""
        together = LatencyHistogram()
        for (_, other), times in self.items():
            if other == name:
                together.merge(times)
        return together

    def clear(self, **_: object) -> None:
        """Forget everything."""
        self._histograms.clear()
        self._noted.clear()

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
        # Failures have no response time: that of a timeout would only be the timeout.
        if response_time is None or exception is not None:
            return
        noted = self._noted[request_type, name]
        noted.append(int(response_time * 1e6))
        if len(noted) >= _FOLD_AT:
            self._sort()

    def _on_report_to_master(self, data: dict[str, Any], **_: object) -> None:
        self._sort()
        data[_FIELD] = [[*key, times.pack()] for key, times in self._histograms.items()]
        self._histograms.clear()

    def _on_worker_report(self, data: dict[str, Any], **_: object) -> None:
        for method, name, packed in data.get(_FIELD, ()):
            self._of((method, name)).merge(LatencyHistogram.unpack(packed))

    def _sort(self) -> None:
        for key, noted in self._noted.items():
            self._of(key).record(noted)
        self._noted.clear()

    def _of(self, key: Key) -> LatencyHistogram:
        if key not in self._histograms:
            self._histograms[key] = LatencyHistogram()
        return self._histograms[key]


_kept: WeakKeyDictionary[Any, Precision] = WeakKeyDictionary()


def precision_of(environment: Any) -> Precision:
    """The histograms of an environment, made when they are first asked for."""
    if environment not in _kept:
        _kept[environment] = Precision(environment)
    return _kept[environment]
