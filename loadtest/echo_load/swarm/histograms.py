"""Response times in microseconds, which locust itself rounds to milliseconds.

Each worker has histograms, and sends them to the master together with locust's own statistics; the
master merges them.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from echo_load.measure.histogram import LatencyHistogram

# Key of the histograms in the message of a worker to the master.
_FIELD = "echoswarm_histograms"
# Number of times that are recorded at once.
_FOLD_AT = 4096
_SIGNIFICANT_DIGITS = 3

Key = tuple[str, str]


def bucket(milliseconds: float) -> float:
    """Round a response time in milliseconds to three significant digits.

    Locust groups equal times. By default it rounds them to two digits and whole milliseconds (its
    documentation, "Customizing response time bucketing").
    """
    if milliseconds <= 0:
        return 0.0
    digits = _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(milliseconds))
    return round(milliseconds, digits)


class Precision:
    """Histograms of the response times of all requests that did not fail.

    Args:
        environment: locust's environment, whose events fill them.
    """

    def __init__(self, environment: Any) -> None:
        self._histograms: dict[Key, LatencyHistogram] = {}
        # Times in nanoseconds that are not in the histograms yet.
        self._pending: defaultdict[Key, array[int]] = defaultdict(lambda: array("q"))
        events = environment.events
        events.request.add_listener(self._on_request)
        events.report_to_master.add_listener(self._on_report_to_master)
        events.worker_report.add_listener(self._on_worker_report)
        events.reset_stats.add_listener(self.clear)
        events.test_start.add_listener(self._on_test_start)

    def merge(self, method: str, name: str, times: LatencyHistogram) -> None:
        """Add times that locust's events do not report."""
        self._of((method, name)).merge(times)

    def items(self) -> Iterator[tuple[Key, LatencyHistogram]]:
        """Return the histogram of each method and name, in their order."""
        self._record_pending()
        return iter(sorted(self._histograms.items()))

    def named(self, name: str) -> LatencyHistogram:
        """Return the histogram of all requests of this name."""
        together = LatencyHistogram()
        for (_, other), times in self.items():
            if other == name:
                together.merge(times)
        return together

    def clear(self, **_: object) -> None:
        """Remove all times."""
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
        # Only successful requests count: the time of one that timed out would be the timeout.
        if response_time is None or exception is not None:
            return
        pending = self._pending[request_type, name]
        pending.append(int(response_time * 1e6))
        if len(pending) >= _FOLD_AT:
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


_by_environment: WeakKeyDictionary[Any, Precision] = WeakKeyDictionary()


def precision_of(environment: Any) -> Precision:
    """Return the histograms of an environment, which the first call creates."""
    if environment not in _by_environment:
        _by_environment[environment] = Precision(environment)
    return _by_environment[environment]
