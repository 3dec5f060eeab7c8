"""The metrics of a swarm for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from echo_client.errors import CONNECTING_KINDS
from echo_client.failure_kinds import LOSSES, MISMATCHES, FailureKind
from echo_core.errors import InvalidValueError
from echo_load.report.exposition import Exposed
from echo_load.swarm.histograms import Histograms
from echo_load.swarm.settings import parse_host
from echo_load.swarm.verdict import generator_bound, threshold_results

_PREFIX = "echo_swarm_"
_MESSAGE_KINDS = sorted({*MISMATCHES, *LOSSES, FailureKind.CLOSED, FailureKind.RESET})


class SwarmCollector(Collector):
    """The metrics of a swarm, computed at each scrape.

    Args:
        environment: environment of locust's master, or of its only process.
        histograms: histograms of that environment.
    """

    def __init__(self, environment: Any, histograms: Histograms) -> None:
        self._environment = environment
        self._histograms = histograms

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        runner = self._environment.runner
        stats = self._environment.stats
        for name, help_text, value in (
            ("users", "Running users.", runner.user_count),
            ("target_users", "Target number of users.", runner.target_user_count),
            ("workers", "Connected workers.", getattr(runner, "worker_count", 1)),
            (
                "generator_bound",
                "1 if the processor of a swarm process, not the target, is the limit.",
                int(generator_bound(self._environment) is not None),
            ),
            ("requests_per_second", "Requests per second at present.", stats.total.current_rps),
        ):
            yield GaugeMetricFamily(_PREFIX + name, help_text, value=value)
        labels = ["method", "name"]
        requests = CounterMetricFamily(f"{_PREFIX}requests", "Requests.", labels=labels)
        for entry in list(stats.entries.values()):
            requests.add_metric([entry.method, entry.name], entry.num_requests)
        yield requests
        failures = CounterMetricFamily(
            f"{_PREFIX}failures", "Failed requests.", labels=[*labels, "kind"]
        )
        counted = _no_failures(self._environment)
        for error in list(stats.errors.values()):
            counted[error.method, error.name, str(error.error)] = error.occurrences
        for labelled, occurrences in counted.items():
            failures.add_metric(labelled, occurrences)
        yield failures
        kept = GaugeMetricFamily(
            f"{_PREFIX}threshold_kept",
            "1 if the threshold has been kept so far.",
            labels=["threshold"],
        )
        for one in threshold_results(self._environment, self._histograms):
            kept.add_metric([one.threshold], int(one.passed))
        yield kept
        times = HistogramMetricFamily(
            f"{_PREFIX}response_time_seconds", "Response times.", labels=labels, unit="seconds"
        )
        for key, histogram in self._histograms.items():
            exposed = Exposed.of(histogram)
            times.add_metric(key, exposed.buckets, exposed.sum_seconds)
        yield times


def _no_failures(environment: Any) -> dict[tuple[str, str, str], int]:
    """Return a count of 0 for each method, name and kind of failure.

    In Prometheus a counter that appears with a value above 0 has no increase.
    """
    try:
        method = parse_host(environment.host).scheme.upper()
    except InvalidValueError:
        # There is no host yet, or it is not that of an echo service.
        return {}
    return {
        (method, name, kind): 0
        for name, kinds in (("connect", CONNECTING_KINDS), ("message", _MESSAGE_KINDS))
        for kind in kinds
    }


def registry(environment: Any, histograms: Histograms) -> CollectorRegistry:
    """Return a registry with the metrics of a swarm and no others."""
    made = CollectorRegistry(auto_describe=False)
    made.register(SwarmCollector(environment, histograms))
    return made
