"""Formatting of the counters in the two formats that Prometheus reads.

The text format (https://prometheus.io/docs/instrumenting/exposition_formats/) and OpenMetrics 1.0
(https://prometheus.io/docs/specs/om/open_metrics_spec/). Names, help texts and labels do not change
while a server runs: they are formatted once, and a scrape only inserts the values.
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
    """A format of the metrics; the value is its media type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @classmethod
    def accepted(cls, accept: str | None) -> Format:
        """Return the format that an Accept header field requests; by default the text format."""
        kinds = {part.partition(";")[0].strip() for part in (accept or "").split(",")}
        return cls.OPENMETRICS if "application/openmetrics-text" in kinds else cls.TEXT


@dataclass(frozen=True, slots=True)
class _Family:
    """A metric family: the samples of one metric name.

    Attributes:
        name: the name, without the prefix and without the suffixes of its samples.
        kind: the metric type.
        help_text: the help text, one sentence.
        samples: for each sample of a worker the suffix of its name, and its labels in the form
            `reason="reset"`.
        values: returns the values of these samples, given a worker's figures.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help_text: str
    samples: Sequence[tuple[str, str]]
    values: Callable[[WorkerFigures], Sequence[float]]

    def head(self, form: Format) -> str:
        """Return the comment lines that precede the samples."""
        return _head(self.name, self.kind, self.help_text, form)

    def lines(self, slot: int) -> Iterator[str]:
        """Yield the sample lines of a worker, each with a placeholder for its value."""
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
        # In the text format a family has the name of its samples, and there is no type "info".
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
    cumulative = list(accumulate(one.cells[first : first + len(LAG_BOUNDS) + 1]))
    return (*cumulative, cumulative[-1], one.cells[Counter.HUB_LAG_NANOSECONDS] * 1e-9)


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
    ("worker_max_fds", "Limit on open file descriptors.", lambda one: one.max_descriptors),
    (
        "worker_start_time_seconds",
        "Start time of the process (Unix time).",
        lambda one: one.started_at,
    ),
)


class Metrics:
    """The metrics page of a server.

    Args:
        workers: the number of workers.
    """

    def __init__(self, workers: int) -> None:
        self._templates = {form: _template(form, workers) for form in Format}
        self._process_heads = {
            form: [_head(name, "gauge", help_text, form) for name, help_text, _ in _PROCESS]
            for form in Format
        }

    def render(
        self, figures: Sequence[WorkerFigures], form: Format, max_connections: int | None
    ) -> bytes:
        """Return the page in a format.

        Args:
            figures: the figures of all workers, in the order of their slots.
            form: the format.
            max_connections: the maximum number of open connections, over all workers; None for no
                limit.
        """
        values = [value for family in _FAMILIES for one in figures for value in family.values(one)]
        lines = self._templates[form] % (_limit(form, max_connections), *values)
        lines += self._processes(figures, form)
        if form is Format.OPENMETRICS:
            lines += "# EOF\n"
        return lines.encode()

    def _processes(self, figures: Sequence[WorkerFigures], form: Format) -> str:
        """Return the metrics of each running worker process that come from the system."""
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


def _limit(form: Format, max_connections: int | None) -> str:
    """Return the metric of the limit on connections; empty if there is none."""
    if max_connections is None:
        return ""
    help_text = "Maximum number of open connections, over all workers."
    head = _head("connections_limit", "gauge", help_text, form)
    return f"{head}{_PREFIX}connections_limit {max_connections}\n"


def _template(form: Format, workers: int) -> str:
    """Return the text of the page, with placeholders for `_limit` and each value of `_FAMILIES`."""
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
    families: list[str] = []
    for family in _FAMILIES:
        families.append(family.head(form))
        for slot in range(workers):
            families += family.lines(slot)
    return "".join(constants).replace("%", "%%") + "%s" + "".join(families)
