"""The figures of a running test for Prometheus."""

from __future__ import annotations

import logging
import socket
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from http import HTTPStatus
from typing import Self

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from structlog.typing import FilteringBoundLogger

from echo_client.failure_kinds import LOSSES, MISMATCHES
from echo_core.endpoint import ANY_HOST, NetworkEndpoint, parse_http_address
from echo_core.errors import InvalidValueError
from echo_core.http_server import HttpServer, Response
from echo_load.errors import MetricsError
from echo_load.measure.counts import Counts
from echo_load.measure.distributions import Measured
from echo_load.measure.histogram import LatencyHistogram
from echo_load.report.exposition import Exposed
from echo_load.results.result import Result
from echo_load.results.watch import WatchResult
from echo_load.runner.observer import Observer, Progress
from echo_load.runner.tally import Tally, generator_findings

_PREFIX = "echo_load_"
_DEFAULT_HOST = "127.0.0.1"
# Timeout of a scrape in seconds: a scrape that stalls delays the end of the test.
_SCRAPE_SECONDS = 2.0

_COUNTERS = (
    ("connections_opened", "Connections established.", "opened"),
    ("connections_failed", "Attempts to open a connection that failed.", "failed"),
    ("connections_lost", "Connections lost before the end of the test.", "lost"),
    ("messages", "Completed round trips.", "messages"),
    ("sent_bytes", "Payload bytes sent.", "bytes_sent"),
    ("received_bytes", "Payload bytes received back.", "bytes_received"),
)
_TIMES = (
    ("response_time", "From when a message was due until its reply had arrived.", "response"),
    ("service_time", "From when a message was sent until its reply had arrived.", "service_times"),
    ("connect_time", "From connect until the connection was established.", "connect"),
    (
        "lateness",
        "Delay of messages behind schedule that the target did not cause.",
        "lateness",
    ),
)
# Kinds of failures that are exposed from the beginning, as 0: Prometheus sees no increase in a
# counter whose first value is 1.
_KINDS = dict.fromkeys((*MISMATCHES, *sorted(LOSSES)), 0)


def parse_listen(text: str) -> NetworkEndpoint:
    """Parse `PORT`, `HOST:PORT` or `http://HOST:PORT`; the default host is 127.0.0.1.

    Raises:
        InvalidValueError: the text is none of these.
    """
    try:
        return parse_http_address(f"{_DEFAULT_HOST}:{text}" if text.isdecimal() else text)
    except InvalidValueError as error:
        raise InvalidValueError(f"{text!r} is not PORT or HOST:PORT") from error


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """The figures of one of several targets at one instant.

    Attributes:
        counts: counts since the beginning.
        response: distribution of the response times.
    """

    counts: Counts
    response: Exposed


@dataclass(frozen=True, slots=True)
class ScrapedFigures:
    """The figures at one instant; immutable, because the server's thread reads them.

    Attributes:
        counts: counts since the beginning.
        times: distributions, by the name of their metric.
        uses_tcp: whether a target is reached over TCP.
        uses_udp: whether a target is reached over UDP.
        elapsed: seconds since the current part of the test began: a repeat, or a stage with
            connections of its own.
        generators: number of generator processes.
        bound: whether a generator has been the bottleneck.
        busy: share of the time for which the busiest generator used or waited for a processor.
        stage: name of the current stage.
        phase: current phase.
        watch: answer of a watch so far; None for any other test.
        targets: figures of each target, by its URL; empty for a single target.
    """

    counts: Counts = field(default_factory=Counts)
    times: Mapping[str, Exposed] = field(default_factory=dict)
    uses_tcp: bool = False
    uses_udp: bool = False
    elapsed: float = 0.0
    generators: int = 0
    bound: bool = False
    busy: float = 0.0
    stage: str = ""
    phase: str = "starting"
    watch: WatchResult | None = None
    targets: Mapping[str, TargetFigures] = field(default_factory=dict)


class PrometheusReport(Observer):
    """A server of `/metrics` during a test; a context manager.

    Args:
        endpoint: address to listen on; port 0 for any free port.

    Attributes:
        url: URL of the metrics, once entered.
        figures: the latest figures.
    """

    url: str

    def __init__(self, endpoint: NetworkEndpoint) -> None:
        self._endpoint = endpoint
        self.figures = ScrapedFigures()
        # Counts and times of the parts that have ended: of all targets at index 0, then of each.
        self._before: defaultdict[int, tuple[Counts, Measured]] = defaultdict(_nothing)
        self._tally: Tally | None = None

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            MetricsError: it cannot listen on the endpoint.
        """
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_FiguresCollector(self))
        endpoint = self._endpoint
        try:
            listener = _listen(endpoint)
        except OSError as error:
            raise MetricsError(
                f"cannot serve metrics on {endpoint.location}: {error.strerror}"
            ) from error
        port = listener.getsockname()[1]
        self.url = f"http://{NetworkEndpoint(endpoint.host, port).location}/metrics"
        self._server = HttpServer(listener, self._answer, _logger(), seconds=_SCRAPE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        # Waits for a scrape in progress.
        self._server.close()

    def _answer(self, path: str, headers: Message) -> Response:
        if path not in {"/", "/metrics"}:
            return Response.of_text(HTTPStatus.NOT_FOUND, "not found; the page is /metrics")
        encode, content_type = choose_encoder(headers.get("Accept", ""))
        return Response(HTTPStatus.OK, encode(self._registry), content_type)

    def progressed(self, progress: Progress) -> None:
        """Update the figures."""
        tally = progress.tally
        if progress.phase == "warming up":
            self.figures = replace(self.figures, phase=progress.phase)
            return
        if self._tally is not None and tally is not self._tally:
            for index, ended in enumerate((self._tally, *self._tally.by_target)):
                self._before[index][0].add(ended.counts)
                self._before[index][1].add(ended.measured)
        self._tally = tally
        counts, measured = self._so_far(0, tally)
        number = max(0, tally.timeline.stage_at(progress.elapsed))
        self.figures = ScrapedFigures(
            counts=counts,
            times={name: Exposed.of(getattr(measured, attribute)) for name, _, attribute in _TIMES},
            uses_tcp=tally.plan.uses_tcp,
            uses_udp=tally.plan.speaks("udp"),
            elapsed=progress.elapsed,
            generators=len(tally.states),
            bound=bool(generator_findings([tally], tally.measured)),
            busy=max((usage.busy for usage in tally.usages), default=0.0),
            stage=tally.plan.stage_name(tally.stages[number]),
            phase=progress.phase,
            watch=progress.watch,
            targets=self._by_target(tally),
        )

    def _so_far(self, index: int, tally: Tally) -> tuple[Counts, Measured]:
        """Return the counts and times of a tally, added to those of the parts that have ended.

        Args:
            index: 0 for all targets, otherwise number of the target, from 1.
            tally: tally of the current part.
        """
        before, measured = self._before[index], Measured()
        measured.add(before[1])
        measured.add(tally.measured)
        return before[0] + tally.counts, measured

    def _by_target(self, tally: Tally) -> dict[str, TargetFigures]:
        """Return the figures of each target, if there are several."""
        # A target may be given more than once.
        together: defaultdict[str, tuple[Counts, LatencyHistogram]] = defaultdict(
            lambda: (Counts(), LatencyHistogram())
        )
        for index, of_target in enumerate(tally.by_target, 1):
            counts, measured = self._so_far(index, of_target)
            target = str(tally.plan.endpoints[index - 1])
            together[target][0].add(counts)
            together[target][1].merge(measured.response)
        return {
            target: TargetFigures(counts, Exposed.of(response))
            for target, (counts, response) in together.items()
        }

    def ended(self, result: Result) -> None:  # noqa: ARG002  # its figures are shown already
        """Show that the test has ended."""
        self.figures = replace(self.figures, phase="ended")


def _nothing() -> tuple[Counts, Measured]:
    return Counts(), Measured()


class _FiguresCollector(Collector):
    """The metrics, which are made from the latest figures at each scrape."""

    def __init__(self, report: PrometheusReport) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        figures = self._report.figures
        for name, help_text, attribute in _COUNTERS:
            yield CounterMetricFamily(
                _PREFIX + name,
                help_text,
                value=getattr(figures.counts, attribute),
                unit="bytes" if name.endswith("_bytes") else "",
            )
        if figures.uses_tcp:
            yield CounterMetricFamily(
                f"{_PREFIX}retransmits",
                "TCP segments retransmitted.",
                value=figures.counts.retransmits,
            )
        if figures.uses_udp:
            yield GaugeMetricFamily(
                f"{_PREFIX}jitter_seconds",
                "Mean jitter of round trips over UDP (RFC 3550).",
                value=(figures.counts.jitter_us or 0.0) / 1e6,
            )
            yield GaugeMetricFamily(
                f"{_PREFIX}loss_burst",
                "Most datagrams lost one after the other on a connection.",
                value=figures.counts.longest_burst,
            )
        errors = CounterMetricFamily(f"{_PREFIX}errors", "Failures by kind.", labels=["kind"])
        for kind, count in sorted((_KINDS | dict(figures.counts.errors)).items()):
            errors.add_metric([kind], count)
        yield errors
        if figures.targets:
            yield from _by_target(figures.targets)
        if figures.watch is not None:
            yield from _outages(figures.watch)
        for name, help_text, value in (
            ("connections_open", "Open connections.", figures.counts.open),
            ("generators", "Generator processes.", figures.generators),
            (
                "generator_bound",
                "1 if the generators, not the target, have been the limit so far.",
                int(figures.bound),
            ),
            (
                "generator_busy_ratio",
                "Share of the time that the busiest generator used or waited for a processor.",
                figures.busy,
            ),
            (
                "elapsed_seconds",
                "Time since the current repeat began, or the current stage of echo-load stress.",
                figures.elapsed,
            ),
        ):
            yield GaugeMetricFamily(_PREFIX + name, help_text, value=value)
        running = GaugeMetricFamily(
            f"{_PREFIX}running",
            "1 for the current stage and phase of the test.",
            labels=["stage", "phase"],
        )
        running.add_metric([figures.stage, figures.phase], 1)
        yield running
        for name, help_text, _ in _TIMES:
            times = figures.times.get(name) or Exposed.of(LatencyHistogram())
            yield HistogramMetricFamily(
                f"{_PREFIX}{name}_seconds",
                help_text,
                buckets=times.buckets,
                sum_value=times.sum_seconds,
                unit="seconds",
            )


def _by_target(targets: Mapping[str, TargetFigures]) -> Iterator[Metric]:
    """Yield the metrics of several targets."""
    prefix = f"{_PREFIX}target_"
    connections = GaugeMetricFamily(
        f"{prefix}connections_open", "Open connections, by target.", labels=["target"]
    )
    messages = CounterMetricFamily(
        f"{prefix}messages", "Completed round trips, by target.", labels=["target"]
    )
    errors = CounterMetricFamily(
        f"{prefix}errors", "Failures by target and kind.", labels=["target", "kind"]
    )
    response = HistogramMetricFamily(
        f"{prefix}response_time_seconds",
        "From when a message was due until its reply had arrived, by target.",
        labels=["target"],
        unit="seconds",
    )
    for target, figures in targets.items():
        connections.add_metric([target], figures.counts.open)
        messages.add_metric([target], figures.counts.messages)
        for kind, count in sorted((_KINDS | dict(figures.counts.errors)).items()):
            errors.add_metric([target, kind], count)
        times = figures.response
        response.add_metric([target], buckets=times.buckets, sum_value=times.sum_seconds)
    yield from (connections, messages, errors, response)


def _outages(found: WatchResult) -> Iterator[Metric]:
    """Yield the metrics of a watch."""
    up = GaugeMetricFamily(
        f"{_PREFIX}target_up", "0 during an outage of the target, else 1.", labels=["target"]
    )
    count = CounterMetricFamily(f"{_PREFIX}outages", "Outages of the target.", labels=["target"])
    seconds = GaugeMetricFamily(
        f"{_PREFIX}outage_seconds", "Duration of the outages together.", labels=["target"]
    )
    for one in found.targets:
        ongoing = any(outage.ongoing for outage in found.outages if outage.target == one.target)
        up.add_metric([one.target], int(not ongoing))
        count.add_metric([one.target], one.outages)
        seconds.add_metric([one.target], one.outage_seconds)
    yield from (up, count, seconds)
    yield CounterMetricFamily(
        f"{_PREFIX}messages_lost", "Probes without a reply.", value=found.messages_lost
    )
    yield CounterMetricFamily(
        f"{_PREFIX}reconnects", "Lost connections that were replaced.", value=found.reconnects
    )
    yield CounterMetricFamily(
        f"{_PREFIX}paused_seconds",
        "Time in which the watch itself did not run.",
        value=found.paused_seconds,
    )


def _listen(endpoint: NetworkEndpoint) -> socket.socket:
    """Return a listener on the first address of a host.

    Raises:
        OSError: it cannot listen there.
    """
    host = None if endpoint.host == ANY_HOST else endpoint.host
    (family, _, _, _, sockaddr), *_ = socket.getaddrinfo(
        host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(sockaddr)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _logger() -> FilteringBoundLogger:
    """Return a logger of warnings to standard error, because standard output is for results."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    return logger
