"""The counters in the two formats that Prometheus reads.

The text format (https://prometheus.io/docs/instrumenting/exposition_formats/) and OpenMetrics 1.0
(https://prometheus.io/docs/specs/om/open_metrics_spec/). Names, help and labels never change while
a server runs: they are laid out once, and a scrape only fills in numbers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from itertools import accumulate
from typing import Literal

from echo_server.metrics.counters import (
    CLOSED,
    DROPPED,
    FAULTS,
    LAG_BOUNDS,
    REJECTED,
    Counter,
    WorkerFigures,
)
from echo_server.metrics.process_figures import ProcessFigures

_PREFIX = "echo_server_"


class Format(Enum):
    """A format of the metrics; its value is the media type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @classmethod
    def accepted(cls, accept: str | None) -> Format:
        """Return the format requested by an Accept header field; the text format by default."""
        kinds = {part.partition(";")[0].strip() for part in (accept or "").split(",")}
        return cls.OPENMETRICS if "application/openmetrics-text" in kinds else cls.TEXT


@dataclass(frozen=True, slots=True)
class _Family:
    """The samples of one metric name.

    Attributes:
        name: without prefix, and without the suffixes of its samples.
        kind: as the formats call it.
        help_text: a sentence.
        samples: of one worker: the suffix of the name, and labels in the form `reason="reset"`.
        values: from a worker's figures to the values of these samples.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help_text: str
    samples: Sequence[tuple[str, str]]
    values: Callable[[WorkerFigures], Sequence[float]]

    def head(self, form: Format) -> str:
        """Return the lines that precede the samples."""
        return _head(self.name, self.kind, self.help_text, form)

    def lines(self, slot: int) -> Iterator[str]:
        """Return the samples of a worker, each with a placeholder for its value."""
        for suffix, labels in self.samples:
            label = f'{labels}{"," if labels else ""}worker="{slot}"'
            yield f"{_PREFIX}{self.name}{suffix}{{{label}}} %s\n"


def _head(name: str, kind: str, help_text: str, form: Format) -> str:
    lines = []
    if form is Format.OPENMETRICS:
        unit = name.rpartition("_")[2]
        if unit in {"bytes", "seconds"}:
            lines.append(f"# UNIT {_PREFIX}{name} {unit}\n")
    else:
        # Here a family is called what its samples are called, and there is no kind for constants.
        name += {"counter": "_total", "info": "_info"}.get(kind, "")
        kind = "gauge" if kind == "info" else kind
    head = (f"# HELP {_PREFIX}{name} {help_text}\n", f"# TYPE {_PREFIX}{name} {kind}\n", *lines)
    return "".join(head)


def _sum(name: str, help_text: str, *counters: Counter, scale: float = 1) -> _Family:
    def values(one: WorkerFigures) -> Sequence[float]:
        return (sum(one.cells[counter] for counter in counters) * scale,)

    return _Family(name, "counter", help_text, (("_total", ""),), values)


def _group(name: str, help_text: str, label: str, counters: Sequence[Counter]) -> _Family:
    return _Family(
        name,
        "counter",
        help_text,
        [("_total", f'{label}="{counter.label}"') for counter in counters],
        lambda one: [one.cells[counter] for counter in counters],
    )


def _hub_lag(one: WorkerFigures) -> Sequence[float]:
    first = Counter.HUB_LAG_BUCKETS
    reached = list(accumulate(one.cells[first : first + len(LAG_BOUNDS) + 1]))
    return (*reached, reached[-1], one.cells[Counter.HUB_LAG_NANOSECONDS] * 1e-9)


_FAMILIES = (
    _Family(
        "worker_up",
        "gauge",
        "1 if the worker serves its listeners, 0 if it is down.",
        [("", "")],
        lambda one: (int(one.up),),
    ),
    _Family("connections_open", "gauge", "Open connections.", [("", "")], lambda o: (o.open,)),
    _sum("connections_accepted", "Connections accepted.", Counter.ACCEPTED),
    _sum("received_bytes", "Bytes received.", Counter.RECEIVED_BYTES),
    _sum("sent_bytes", "Bytes sent back.", Counter.SENT_BYTES),
    _sum("reads", "Receive calls that returned data.", Counter.READS),
    _sum("writes", "Send calls.", Counter.READS, Counter.EXTRA_WRITES),
    _sum("datagrams_received", "Datagrams received.", Counter.DATAGRAMS_RECEIVED),
    _sum("datagrams_sent", "Datagrams sent back.", Counter.DATAGRAMS_SENT),
    _sum("accept_errors", "Errors of accept calls.", Counter.ACCEPT_ERRORS),
    _sum(
        "log_lines_dropped",
        "Log lines dropped because the queue was full.",
        Counter.LOG_LINES_DROPPED,
    ),
    _sum(
        "worker_cpu_seconds",
        "Processor time, user and system.",
        Counter.CPU_NANOSECONDS,
        scale=1e-9,
    ),
    _group("connections_rejected", "Connections rejected.", "reason", REJECTED),
    _group("connections_closed", "Connections closed.", "reason", CLOSED),
    _group("datagrams_dropped", "Datagrams received and not sent back.", "reason", DROPPED),
    _group("faults_injected", "Faults injected by --fault.", "kind", FAULTS),
    _Family(
        "worker_restarts",
        "counter",
        "Workers replaced because they died.",
        (("_total", ""),),
        lambda one: (one.restarts,),
    ),
    _Family(
        "hub_lag_seconds",
        "histogram",
        "Lateness of a timer on the event loop.",
        [
            *(("_bucket", f'le="{bound}"') for bound in (*map(str, LAG_BOUNDS), "+Inf")),
            ("_count", ""),
            ("_sum", ""),
        ],
        _hub_lag,
    ),
)
_PROCESS: tuple[tuple[str, str, Callable[[ProcessFigures], float]], ...] = (
    ("worker_resident_memory_bytes", "Resident memory.", lambda one: one.resident_bytes),
    ("worker_open_fds", "Open file descriptors.", lambda one: one.descriptors),
    ("worker_max_fds", "Limit on open file descriptors.", lambda one: one.most_descriptors),
    (
        "worker_start_time_seconds",
        "Start time of the process (Unix time).",
        lambda one: one.started_at,
    ),
)


class Metrics:
    """Renders the figures of workers.

    Args:
        workers: how many there are.
        max_connections: connections that may be open at once in all of them; None is no limit.
    """

    def __init__(self, workers: int, max_connections: int | None) -> None:
        self._layouts = {form: _layout(form, workers, max_connections) for form in Format}
        self._process_heads = {
            form: [_head(name, "gauge", help_text, form) for name, help_text, _ in _PROCESS]
            for form in Format
        }

    def render(self, figures: Sequence[WorkerFigures], form: Format) -> bytes:
        """Return the metrics of all workers, each slot once and in order."""
        values = [value for family in _FAMILIES for one in figures for value in family.values(one)]
        lines = self._layouts[form] % tuple(values) + self._processes(figures, form)
        if form is Format.OPENMETRICS:
            lines += "# EOF\n"
        return lines.encode()

    def _processes(self, figures: Sequence[WorkerFigures], form: Format) -> str:
        """Return the system's figures of each worker process that is running."""
        processes = [
            (one.slot, process)
            for one in figures
            if one.pid is not None and (process := ProcessFigures.of(one.pid)) is not None
        ]
        lines = []
        for head, (name, _, value) in zip(self._process_heads[form], _PROCESS, strict=True):
            lines.append(head)
            for slot, process in processes:
                number = f"{value(process)}".replace("inf", "+Inf")
                lines.append(f'{_PREFIX}{name}{{worker="{slot}"}} {number}\n')
        return "".join(lines)


def _layout(form: Format, workers: int, max_connections: int | None) -> str:
    """Return the constant text of the page, with a placeholder for each value of `_FAMILIES`."""
    versions = {
        "gevent": version("gevent"),
        "python": platform.python_version(),
        "version": version("echoswarm"),
    }
    labels = ",".join(f'{name}="{value}"' for name, value in versions.items())
    constants = [
        _head("build", "info", "Versions.", form),
        f"{_PREFIX}build_info{{{labels}}} 1\n",
        _head("workers", "gauge", "Worker processes.", form),
        f"{_PREFIX}workers {workers}\n",
    ]
    if max_connections is not None:
        help_text = "Maximum number of open connections, over all workers."
        constants.append(_head("connections_limit", "gauge", help_text, form))
        constants.append(f"{_PREFIX}connections_limit {max_connections}\n")
    families: list[str] = []
    for family in _FAMILIES:
        families.append(family.head(form))
        for slot in range(workers):
            families += family.lines(slot)
    return "".join(constants).replace("%", "%%") + "".join(families)
