"""The admin page: /metrics for Prometheus, /healthz and /readyz for whoever sends traffic.

The supervisor serves it, each request in a thread. It reads the counters where the workers write
them, in shared memory: a scrape costs the workers nothing.
"""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from socketserver import ThreadingMixIn
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from echo_core.endpoint import NetworkEndpoint
from echo_server.counters import (
    CLOSED,
    DROPPED,
    FAULTS,
    LAG_BOUNDS,
    REJECTED,
    Counter,
    WorkerFigures,
)
from echo_server.listeners import bound_endpoint, listen_tcp

log = structlog.get_logger()

_BACKLOG = 128
# What a client of the admin page gets to send its request.
_REQUEST_SECONDS = 10.0
_RETRY_SECONDS = 0.1
_PREFIX = "echo_server_"

# Counter families without a reason: name, help, what is added up, and to which unit it is scaled.
_PLAIN: tuple[tuple[str, str, tuple[Counter, ...], float], ...] = (
    ("connections_accepted", "Connections that were let in.", (Counter.ACCEPTED,), 1),
    ("received_bytes", "Bytes received.", (Counter.RECEIVED_BYTES,), 1),
    ("sent_bytes", "Bytes sent back.", (Counter.SENT_BYTES,), 1),
    ("reads", "Receive calls that brought data.", (Counter.READS,), 1),
    ("writes", "Send calls.", (Counter.READS, Counter.EXTRA_WRITES), 1),
    ("datagrams_received", "Datagrams received.", (Counter.DATAGRAMS_RECEIVED,), 1),
    ("datagrams_sent", "Datagrams sent back.", (Counter.DATAGRAMS_SENT,), 1),
    ("accept_errors", "Errors while accepting.", (Counter.ACCEPT_ERRORS,), 1),
    ("log_lines_dropped", "Log lines that found the queue full.", (Counter.LOG_LINES_DROPPED,), 1),
    ("worker_cpu_seconds", "Processor time, user and system.", (Counter.CPU_NANOSECONDS,), 1e-9),
)
# Families that tell apart: name, help, by what, and the counters.
_GROUPS: tuple[tuple[str, str, str, tuple[Counter, ...]], ...] = (
    ("connections_rejected", "Connections that were turned away.", "reason", REJECTED),
    ("connections_closed", "Connections that have ended.", "reason", CLOSED),
    ("datagrams_dropped", "Datagrams that were not sent back.", "reason", DROPPED),
    ("faults_injected", "Faults injected on purpose.", "kind", FAULTS),
)
# What prometheus_client reads of a process in /proc, and its name here.
_PROCESS = {
    "process_resident_memory_bytes": ("resident_memory_bytes", "Memory in RAM."),
    "process_open_fds": ("open_fds", "Open file descriptors."),
    "process_max_fds": ("max_fds", "File descriptors that may be open."),
    "process_start_time_seconds": ("start_time_seconds", "When the process started (Unix time)."),
}


class Service(Protocol):
    """What the admin page is about."""

    def is_ready(self) -> bool:
        """Whether connections are accepted, and will be."""

    def figures(self) -> Sequence[WorkerFigures]:
        """The figures of every worker."""


class _ServiceCollector(Collector):
    """Makes metrics of the counters in shared memory whenever they are asked for."""

    def __init__(self, service: Service, max_connections: int | None) -> None:
        self._service = service
        self._max_connections = max_connections

    def collect(self) -> Iterator[Metric]:
        figures = self._service.figures()
        yield InfoMetricFamily(
            f"{_PREFIX}build",
            "Versions.",
            {
                "version": version("echoswarm"),
                "python": platform.python_version(),
                "gevent": version("gevent"),
            },
        )
        yield _gauge("workers", "Worker processes.", {None: len(figures)})
        yield _gauge(
            "connections_open",
            "Connections open now.",
            {str(one.slot): one.open for one in figures},
        )
        if self._max_connections is not None:
            yield _gauge(
                "connections_limit",
                "Connections that may be open at once, in all workers together.",
                {None: self._max_connections},
            )
        for name, help_text, counters, scale in _PLAIN:
            family = CounterMetricFamily(
                _PREFIX + name, help_text, labels=["worker"], unit=_unit(name)
            )
            for one in figures:
                value = sum(one.cells[counter] for counter in counters)
                family.add_metric([str(one.slot)], value * scale if scale != 1 else value)
            yield family
        for name, help_text, label, counters in _GROUPS:
            yield _group(name, help_text, label, counters, figures)
        restarts = CounterMetricFamily(
            f"{_PREFIX}worker_restarts", "Workers replaced because they died.", labels=["worker"]
        )
        for one in figures:
            restarts.add_metric([str(one.slot)], one.restarts)
        yield restarts
        yield _hub_lag(figures)
        yield from _processes(figures)


class AdminServer:
    """Serves the admin page from a thread of its own.

    Args:
        endpoint: where; port 0 is any free port.
        service: what it is about.
        max_connections: how many it may have open at once; None is no limit.

    Raises:
        ListenError: the endpoint cannot be listened on.
    """

    def __init__(
        self, endpoint: NetworkEndpoint, service: Service, max_connections: int | None
    ) -> None:
        listener = listen_tcp(endpoint, _BACKLOG)
        self._endpoint = bound_endpoint(listener)
        server = _HttpServer(listener, _application(service, max_connections))
        threading.Thread(target=server.serve_forever, name="admin", daemon=True).start()

    def announce(self) -> None:
        """Print where the page is on standard output."""
        print(f"admin http://{self._endpoint.location}", flush=True)


class _HttpServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, application: Any) -> None:
        super().__init__(("", 0), _RequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(application)

    def get_request(self) -> Any:
        """Accept; out of descriptors, wait until one may have been given back."""
        try:
            return super().get_request()
        except BlockingIOError:
            raise
        except OSError:
            time.sleep(_RETRY_SECONDS)
            raise

    def handle_error(self, _request: object, _client_address: object) -> None:
        # A client that left is none of our business; anything else is.
        log.debug("admin request failed", exc_info=True)


class _RequestHandler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        log.debug("admin request", request=format % args)


StartResponse = Callable[[str, list[tuple[str, str]]], object]


def _application(
    service: Service, max_connections: int | None
) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ServiceCollector(service, max_connections))
    metrics = make_wsgi_app(registry)

    def application(environment: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _text(start_response, "405 Method Not Allowed", "GET and HEAD only")
        match environment["PATH_INFO"]:
            case "/metrics":
                page: Iterable[bytes] = metrics(environment, start_response)
                return page
            case "/healthz":
                answer = ("200 OK", "ok")
            case "/readyz" if service.is_ready():
                answer = ("200 OK", "ready")
            case "/readyz":
                answer = ("503 Service Unavailable", "starting or draining")
            case _:
                answer = ("404 Not Found", "there are /metrics, /healthz and /readyz")
        return _text(start_response, *answer)

    return application


def _text(start_response: StartResponse, status: str, text: str) -> list[bytes]:
    body = f"{text}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    if status.startswith("405"):
        headers.append(("Allow", "GET, HEAD"))
    start_response(status, headers)
    return [body]


def _unit(name: str) -> str:
    """The unit that a metric's name ends in (OpenMetrics wants it said, and said last)."""
    last = name.rpartition("_")[2]
    return last if last in {"bytes", "seconds"} else ""


def _gauge(name: str, help_text: str, values: dict[str | None, int | float]) -> GaugeMetricFamily:
    labels = [] if None in values else ["worker"]
    family = GaugeMetricFamily(_PREFIX + name, help_text, labels=labels, unit=_unit(name))
    for worker, value in values.items():
        family.add_metric([] if worker is None else [worker], value)
    return family


def _group(
    name: str,
    help_text: str,
    label: str,
    counters: Sequence[Counter],
    figures: Sequence[WorkerFigures],
) -> CounterMetricFamily:
    family = CounterMetricFamily(_PREFIX + name, help_text, labels=["worker", label])
    for one in figures:
        for counter in counters:
            family.add_metric([str(one.slot), counter.label], one.cells[counter])
    return family


def _hub_lag(figures: Sequence[WorkerFigures]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        f"{_PREFIX}hub_lag_seconds",
        "Time by which a timer comes too late.",
        labels=["worker"],
        unit="seconds",
    )
    bounds = [*map(str, LAG_BOUNDS), "+Inf"]
    for one in figures:
        reached = 0
        buckets: list[tuple[str, float]] = []
        for number, bound in enumerate(bounds):
            reached += one.cells[Counter.HUB_LAG_BUCKETS + number]
            buckets.append((bound, reached))
        seconds = one.cells[Counter.HUB_LAG_NANOSECONDS] * 1e-9
        family.add_metric([str(one.slot)], buckets, seconds)
    return family


def _processes(figures: Sequence[WorkerFigures]) -> Iterator[GaugeMetricFamily]:
    """What /proc says of each worker's process; nothing where there is no /proc."""
    values: dict[str, dict[str | None, int | float]] = {name: {} for name in _PROCESS}
    for one in figures:
        if one.pid is None:
            continue
        for metric in ProcessCollector(pid=partial(int, one.pid), registry=None).collect():
            if metric.name in values:
                values[metric.name][str(one.slot)] = metric.samples[0].value
    for name, (ours, help_text) in _PROCESS.items():
        yield _gauge(f"worker_{ours}", help_text, values[name])
