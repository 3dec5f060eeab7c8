"""The parts of a report's charts: traces and layouts as plotly.js takes them.

They have no colours: each trace names one of the page's palette (`meta.colour`), so that the page
can follow the reader's light or dark setting. Nothing is distinguished by colour alone: runs also
differ in their markers, percentiles in their dashes, kinds of errors in their patterns.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.thresholds import written_time
from echo_load.report.page.axes import Number
from echo_load.report.page.seconds import Points
from echo_load.results.result import Result

# Up to this many points, each has a marker; of more, a dozen do, enough to tell lines apart.
_FEW_POINTS = 60
# The number of colours in the page's palette, for runs and for kinds of errors alike.
COLOURS = 6
PATTERNS = ("", "/", "x", ".", "-", "\\", "+", "|")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_LONGEST_NAME = 24

Trace = dict[str, Any]
Layout = dict[str, Any]


class Run(NamedTuple):
    """A result and its name.

    Attributes:
        name: the name of the run.
        result: its result.
        response: its response times.
        service: its service times.
    """

    name: str
    result: Result
    response: LatencyHistogram
    service: LatencyHistogram

    @classmethod
    def of(cls, result: Result, name: str) -> Run:
        """Read the distributions of a result."""
        latencies = result.latency_us
        response = LatencyHistogram.decode(latencies.response.histogram)
        service = LatencyHistogram.decode(latencies.service.histogram)
        return cls(name, result, response, service)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        name: identifies its place in the page.
        group: the group of charts that it belongs to.
        title: what it shows.
        caption: how to read it, and what it says in words.
        data: traces as plotly.js takes them; none if there is nothing to show.
        layout: its layout, likewise.
    """

    name: str
    group: Literal["time", "latency"]
    title: str
    caption: str
    data: list[Trace]
    layout: Layout


def line(found: Points, name: str, number: int) -> Trace:
    """A line with a run's colour and markers.

    Args:
        found: its points.
        name: the name of the run.
        number: the number of the run, from 0.
    """
    few = len(found.x) <= _FEW_POINTS or found.alone
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(name),
        "line": {"width": 2 if few else 1.4},
        "marker": {
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "size": 5 if few else 7,
            "maxdisplayed": 0 if few else 12,
        },
        "x": found.x,
        "y": found.y,
        "hovertemplate": "%{fullData.name} %{y:,.4~g}<extra></extra>",
        "meta": {"colour": f"run-{number % COLOURS}"},
    }


def with_times(trace: Trace) -> Trace:
    """Label the seconds of a trace as text with units."""
    trace["customdata"] = [written_time(y) if y else "" for y in trace["y"]]
    trace["hovertemplate"] = "%{fullData.name} %{customdata}<extra></extra>"
    return trace


def plain(text: str) -> str:
    """A text escaped for plotly.js, which reads markup, and short enough for a legend."""
    return html.escape(_short(text), quote=False)


def of_run(run: Run, runs: Sequence[Run]) -> str:
    """The name of a run in parentheses, if there are several runs."""
    return f" ({_short(run.name)})" if len(runs) > 1 else ""


def _short(text: str) -> str:
    """The end of a long text: paths differ there."""
    return text if len(text) <= _LONGEST_NAME else "…" + text[1 - _LONGEST_NAME :]


def values_of(data: Sequence[Trace]) -> list[Number]:
    """All values of some traces."""
    return [y for trace in data for y in trace["y"]]


def unless_empty(data: list[Trace]) -> list[Trace]:
    """The traces, if any of them has anything to show."""
    return data if any(value is not None for value in values_of(data)) else []


def layout_of(xaxis: dict[str, Any], yaxis: dict[str, Any], *, legend: bool) -> Layout:
    """A layout of two axes."""
    return {"xaxis": xaxis, "yaxis": yaxis, "showlegend": legend}
