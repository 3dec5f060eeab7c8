"""What a swarm says at its end and on its pages: microseconds, thresholds, metrics."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locust.stats import RequestStats
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from echo_client.errors import CONNECTING_KINDS
from echo_core.errors import ExitCode, InvalidValueError
from echo_load.plan.payload import MISMATCHES
from echo_load.plan.thresholds import LOSSES, Figures, ThresholdResult
from echo_load.report.exposition import Exposed
from echo_load.results.verdict import is_tolerated
from echo_load.swarm.duration import duration_of
from echo_load.swarm.precision import Precision
from echo_load.swarm.settings import Settings, parse_host

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
COLUMNS = ("method", "name", "count", "mean_us", *(f"p{one:g}_us" for one in PERCENTILES), "max_us")
_PREFIX = "echo_swarm_"
_MESSAGE_KINDS = sorted({*MISMATCHES, *LOSSES, "closed", "reset"})
# Requests in which no message comes back.
_AROUND = frozenset({"connect", "close", "send"})

logger = logging.getLogger(__name__)


def rows(precision: Precision) -> list[tuple[str | int | float, ...]]:
    """A row a request, as `COLUMNS` names them."""
    return [
        (
            *key,
            times.count,
            round(times.mean_us, 3),
            *times.percentiles_us(PERCENTILES),
            times.max_us,
        )
        for key, times in precision.items()
    ]


def add_microseconds(stats: RequestStats, precision: Precision) -> None:
    """Let the entries of locust's JSON output have the histogram's figures, as `microseconds`."""
    serialize = stats.serialize_stats

    def with_microseconds() -> list[Any]:
        figures = {
            (method, name): dict(zip(COLUMNS[2:], values, strict=True))
            for method, name, *values in rows(precision)
        }
        return [
            {**entry, "microseconds": figures.get((entry["method"], entry["name"]))}
            for entry in serialize()
        ]

    stats.serialize_stats = with_microseconds  # type: ignore[method-assign]


def text_table(precision: Precision) -> str:
    """The rows for people."""
    lines = [("method", "name", "count", "mean", *(f"p{one:g}" for one in PERCENTILES), "max")]
    for method, name, count, *times in rows(precision):
        lines.append((str(method), str(name), f"{count:,}", *(f"{time:,.0f}" for time in times)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_csv(precision: Precision, path: Path) -> None:
    """Write the rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows(precision))


def judged(environment: Any, precision: Precision) -> list[ThresholdResult]:
    """The thresholds of the command line or the web form, and whether they were kept."""
    limits = Settings.of(environment.parsed_options).thresholds
    if not limits:
        return []
    stats = environment.stats
    messages = precision.named("message")
    connects = precision.named("connect")
    figures = Figures(
        seconds=duration_of(environment).seconds,
        latencies={
            "response": messages,
            "connect": connects,
        },
        counts={
            "messages": messages.count,
            "connections_opened": connects.count,
            "connections_failed": sum(
                error.occurrences for error in stats.errors.values() if error.name == "connect"
            ),
        },
        errors=_failed_kinds(stats),
        # Of other requests than messages only those are attempts that failed.
        attempts=sum(one.num_requests for one in stats.entries.values() if one.name == "message")
        + sum(one.occurrences for one in stats.errors.values() if one.name != "message"),
    )
    return [limit.judge(figures) for limit in limits]


def conclude(environment: Any, precision: Precision) -> None:
    """Say at the end what was measured and which thresholds were crossed; set the exit code."""
    table = text_table(precision)
    if len(table.splitlines()) > 1:
        logger.info("response times in microseconds\n%s", table)
    prefix = getattr(environment.parsed_options, "csv_prefix", None)
    if prefix:
        write_csv(precision, Path(f"{prefix}_microseconds.csv"))
    results = judged(environment, precision)
    for one in results:
        if one.passed:
            logger.info("threshold %s kept: %s", one.threshold, one.measured)
        else:
            logger.error("threshold %s crossed: %s", one.threshold, one.measured)
    if bound := generator_bound(environment):
        logger.warning("%s", bound)
    reasons = failures(environment, precision, at_end=duration_of(environment).has_begun)
    for reason in reasons:
        logger.error("failed: %s", reason)
    if reasons:
        environment.process_exit_code = environment.parsed_options.exit_code_on_error
    elif not all(one.passed for one in results):
        environment.process_exit_code = int(ExitCode.THRESHOLD)
    elif environment.stats.errors:
        # Thresholds say how many there may be, and they were kept.
        environment.process_exit_code = int(ExitCode.OK)


def generator_bound(environment: Any) -> str | None:
    """Say what to do where the processor of a worker was the limit, and not the target; or None."""
    runner = environment.runner
    if not (runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted):
        return None
    return (
        "generator-bound: a process of the swarm used over 90 % of a processor; its times are its "
        "own. Add --processes or workers, or use EchoBlockUser"
    )


def verdict_rows(environment: Any, precision: Precision) -> list[tuple[str, str, str]]:
    """What is looked at, what came of it so far, and whether that is right, a row each."""
    found = [
        (f"threshold {one.threshold}", one.measured, "kept" if one.passed else "crossed")
        for one in judged(environment, precision)
    ]
    at_end = duration_of(environment).has_ended
    found += [
        ("failure", reason, "failed") for reason in failures(environment, precision, at_end=at_end)
    ]
    if bound := generator_bound(environment):
        found.append(("generator", bound, "the limit"))
    return found or [("failure", "none", "")]


def failures(environment: Any, precision: Precision, *, at_end: bool) -> list[str]:
    """Why a swarm failed, a line each; none if it did not.

    Args:
        environment: locust's.
        precision: its histograms.
        at_end: there has been a test, and what has not come by now has not come.
    """
    found = [str(one["msg"]) for one in environment.runner.exceptions.values()]
    answered = any(times.count for (_, name), times in precision.items() if name not in _AROUND)
    if at_end and not answered:
        found.append("not one message came back")
    limited = {one.metric for one in Settings.of(environment.parsed_options).thresholds}
    kinds = _failed_kinds(environment.stats)
    if any(not is_tolerated(kind, limited) for kind in kinds):
        found.append(", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items())))
    return found


def _failed_kinds(stats: Any) -> Counter[str]:
    """How many requests failed, by kind."""
    kinds: Counter[str] = Counter()
    for error in stats.errors.values():
        kinds[str(error.error)] += error.occurrences
    return kinds


class SwarmCollector(Collector):
    """A swarm's figures for Prometheus, made whenever they are asked for.

    Args:
        environment: locust's, of the master or of a process that is alone.
        precision: its histograms.
    """

    def __init__(self, environment: Any, precision: Precision) -> None:
        self._environment = environment
        self._precision = precision

    def collect(self) -> Iterator[Metric]:
        """All families."""
        runner = self._environment.runner
        stats = self._environment.stats
        for name, help_text, value in (
            ("users", "Users that run.", runner.user_count),
            ("target_users", "Users that are wanted.", runner.target_user_count),
            ("workers", "Workers that are connected.", getattr(runner, "worker_count", 1)),
            (
                "generator_bound",
                "Whether the processor of a process of the swarm is the limit, not the target.",
                int(generator_bound(self._environment) is not None),
            ),
            ("requests_per_second", "Requests in a second, lately.", stats.total.current_rps),
        ):
            yield GaugeMetricFamily(_PREFIX + name, help_text, value=value)
        labels = ["method", "name"]
        requests = CounterMetricFamily(f"{_PREFIX}requests", "Requests.", labels=labels)
        for entry in list(stats.entries.values()):
            requests.add_metric([entry.method, entry.name], entry.num_requests)
        yield requests
        failures = CounterMetricFamily(
            f"{_PREFIX}failures", "Requests that failed.", labels=[*labels, "kind"]
        )
        counted = _nothing_failed(self._environment)
        for error in list(stats.errors.values()):
            counted[error.method, error.name, str(error.error)] = error.occurrences
        for labelled, occurrences in counted.items():
            failures.add_metric(labelled, occurrences)
        yield failures
        kept = GaugeMetricFamily(
            f"{_PREFIX}threshold_kept", "Whether a threshold is kept so far.", labels=["threshold"]
        )
        for one in judged(self._environment, self._precision):
            kept.add_metric([one.threshold], int(one.passed))
        yield kept
        times = HistogramMetricFamily(
            f"{_PREFIX}response_time_seconds", "Response times.", labels=labels, unit="seconds"
        )
        for key, histogram in self._precision.items():
            exposed = Exposed.of(histogram)
            times.add_metric(key, exposed.buckets, exposed.sum_seconds)
        yield times


def _nothing_failed(environment: Any) -> dict[tuple[str, str, str], int]:
    """No failure of each known kind: what begins at 1 has no increase."""
    try:
        method = parse_host(environment.host).scheme.upper()
    except InvalidValueError:
        # None yet, or that of users of another kind.
        return {}
    return {
        (method, name, kind): 0
        for name, kinds in (("connect", CONNECTING_KINDS), ("message", _MESSAGE_KINDS))
        for kind in kinds
    }


def registry(environment: Any, precision: Precision) -> CollectorRegistry:
    """A registry with the swarm's figures alone."""
    made = CollectorRegistry(auto_describe=False)
    made.register(SwarmCollector(environment, precision))
    return made
