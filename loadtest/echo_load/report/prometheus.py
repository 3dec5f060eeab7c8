"""The figures of a test for Prometheus, while it lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from socketserver import ThreadingMixIn
from typing import Self
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from echo_client.payload import WRONG
from echo_core.endpoint import ANY_HOST, Endpoint, NetworkEndpoint
from echo_core.errors import InvalidValueError
from echo_load.controller import Observer, Progress
from echo_load.engines import Counts
from echo_load.engines.recorder import Measured
from echo_load.errors import MetricsError
from echo_load.latency import LatencyHistogram
from echo_load.report.exposition import Exposed
from echo_load.result import Result
from echo_load.tally import Tally, generator_findings
from echo_load.thresholds import LOSSES

_PREFIX = "echo_load_"
_DEFAULT_HOST = "127.0.0.1"
# What a scrape may take to be asked for, and read.
_SCRAPE_SECONDS = 2.0

_COUNTERS = (
    ("connections_opened", "Connections established.", "opened"),
    ("connections_failed", "Attempts to open a connection that failed.", "failed"),
    ("connections_lost", "Connections given up before the end, for an error.", "lost"),
    ("messages", "Round trips completed, the warm-up included.", "messages"),
    ("sent_bytes", "Payload bytes sent.", "bytes_sent"),
    ("received_bytes", "Payload bytes that came back.", "bytes_received"),
    ("retransmits", "Segments that TCP sent again.", "retransmits"),
)
_TIMES = (
    ("response_time", "From when a message was due until its reply was in.", "response"),
    ("service_time", "From when a message left until its reply was in.", "service_times"),
    ("connect_time", "From connecting until the connection was established.", "connect"),
    (
        "lateness",
        "By how much messages left later than they were due, for no target's fault.",
        "lateness",
    ),
)
# Kinds of errors that are shown before the first has happened: what begins at 1 has no increase.
_KINDS = dict.fromkeys((*WRONG, *sorted(LOSSES)), 0)


def parse_listen(text: str) -> NetworkEndpoint:
    """Read `PORT`, `HOST:PORT` or `http://HOST:PORT`; without a host it is 127.0.0.1.

    Raises:
        InvalidValueError: it is none of these.
    """
    location = text.removeprefix("http://").rstrip("/")
    if location.isdecimal():
        location = f"{_DEFAULT_HOST}:{location}"
    try:
        endpoint = Endpoint.parse(location)
    except InvalidValueError as error:
        raise InvalidValueError(f"{text!r} is not PORT or HOST:PORT") from error
    is_tcp = isinstance(endpoint, NetworkEndpoint) and endpoint.transport == "tcp"
    if not is_tcp or not location.endswith(f":{endpoint.location.rpartition(':')[2]}"):
        raise InvalidValueError(f"{text!r} is not PORT or HOST:PORT")
    assert isinstance(endpoint, NetworkEndpoint)
    return endpoint


@dataclass(frozen=True, slots=True)
class Figures:
    """What is shown: made by whoever runs the test, read by whoever asks, never changed."""

    counts: Counts = field(default_factory=Counts)
    times: Mapping[str, Exposed] = field(default_factory=dict)
    elapsed: float = 0.0
    generators: int = 0
    bound: bool = False
    busy: float = 0.0
    stage: str = ""
    phase: str = "starting"


class PrometheusReport(Observer):
    """Serves `/metrics` while a test runs, until its end; a context manager.

    Args:
        endpoint: where; port 0 is any free port.

    Attributes:
        url: of the page, once entered.
        figures: the latest.
    """

    url: str

    def __init__(self, endpoint: NetworkEndpoint) -> None:
        self._endpoint = endpoint
        self.figures = Figures()
        # Of the parts that have ended.
        self._before = Counts(), Measured()
        self._tally: Tally | None = None

    def __enter__(self) -> Self:
        """Begin to serve.

        Raises:
            MetricsError: the endpoint cannot be listened on.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_FiguresCollector(self))
        endpoint = self._endpoint
        host = "" if endpoint.host == ANY_HOST else endpoint.host
        try:
            self._server, self._thread = start_http_server(endpoint.port, host, registry)
        except OSError as error:
            raise MetricsError(
                f"cannot serve metrics on {endpoint.location}: {error.strerror}"
            ) from error
        # A scrape under way when the test ends gets all of its answer.
        assert isinstance(self._server, ThreadingMixIn)
        self._server.daemon_threads = False
        self._server.RequestHandlerClass = _Handler
        port = self._server.server_port
        self.url = f"http://{NetworkEndpoint(endpoint.host, port).location}/metrics"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def progressed(self, progress: Progress) -> None:
        """Show the figures as they are now."""
        tally = progress.tally
        if self._tally is not None and tally is not self._tally:
            self._before[0].add(self._tally.counts)
            self._before[1].add(self._tally.measured)
        self._tally = tally
        counts = self._before[0] + tally.counts
        measured = Measured()
        measured.add(self._before[1])
        measured.add(tally.measured)
        number = max(0, tally.timeline.stage_at(progress.elapsed))
        self.figures = Figures(
            counts=counts,
            times={name: Exposed.of(getattr(measured, attribute)) for name, _, attribute in _TIMES},
            elapsed=progress.elapsed,
            generators=len(tally.states),
            bound=bool(generator_findings([tally], tally.measured)),
            busy=max((usage.busy for usage in tally.usages), default=0.0),
            stage=tally.plan.stage_name(tally.stages[number]),
            phase=progress.phase,
        )

    def ended(self, result: Result) -> None:  # noqa: ARG002  # what there is has been shown
        """Show that there will be no more."""
        self.figures = replace(self.figures, phase="ended")


class _Handler(WSGIRequestHandler):
    """Answers a scrape, quietly; one that stalls or goes away ends."""

    timeout = _SCRAPE_SECONDS

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name
        pass


class _FiguresCollector(Collector):
    """Makes metrics of the latest figures whenever they are asked for."""

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
        errors = CounterMetricFamily(f"{_PREFIX}errors", "Failures by kind.", labels=["kind"])
        for kind, count in sorted((_KINDS | dict(figures.counts.errors)).items()):
            errors.add_metric([kind], count)
        yield errors
        for name, help_text, value in (
            ("connections_open", "Connections open now.", figures.counts.open),
            ("generators", "Processes that generate.", figures.generators),
            (
                "generator_bound",
                "Whether the generators, not the target, are the limit so far.",
                int(figures.bound),
            ),
            (
                "generator_busy_ratio",
                "Share of the time that the busiest generator used or wanted a processor.",
                figures.busy,
            ),
            ("elapsed_seconds", "Time since the first stage of a part began.", figures.elapsed),
        ):
            yield GaugeMetricFamily(_PREFIX + name, help_text, value=value)
        running = GaugeMetricFamily(
            f"{_PREFIX}running", "What the test is doing.", labels=["stage", "phase"]
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
