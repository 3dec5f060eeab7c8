"""Parts of charts: traces and layouts in the format of plotly.js.

A trace has the name of a colour (`meta.colour`) instead of the colour, so that the page can use a
light or a dark palette. Nothing is distinguished by colour alone: runs also differ in their
markers, percentiles in their dashes, and kinds of errors in their patterns.
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

# Up to this number of points, each point has a marker; of more points, a dozen have one.
_FEW_POINTS = 60
# Number of colours in the palette for runs, and of those for kinds of errors.
COLOURS = 6
PATTERNS = ("", "/", "x", ".", "-", "\\", "+", "|")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_LONGEST_NAME = 24

Trace = dict[str, Any]
Layout = dict[str, Any]


class Run(NamedTuple):
    """A result in a report.

    Attributes:
        name: name of the result.
        result: the result itself.
        response: distribution of its response times.
        service: distribution of its service times.
    """

    name: str
    result: Result
    response: LatencyHistogram
    service: LatencyHistogram

    @classmethod
    def of(cls, result: Result, name: str) -> Run:
        """Decode the distributions of a result."""
        latencies = result.latency_us
        response = LatencyHistogram.decode(latencies.response.histogram)
        service = LatencyHistogram.decode(latencies.service.histogram)
        return cls(name, result, response, service)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        name: name in the id of its element.
        group: group of charts to which it belongs.
        title: heading above the chart.
        caption: text that explains the chart.
        data: traces in the format of plotly.js; empty if there is nothing to show.
        layout: layout in the format of plotly.js.
    """

    name: str
    group: Literal["capacity", "idle", "time", "latency", "by-target", "generators"]
    title: str
    caption: str
    data: list[Trace]
    layout: Layout


def line(found: Points, name: str, number: int) -> Trace:
    """Return a line with the colour and the markers of a run.

    Args:
        found: points of the line.
        name: name of the run.
        number: number of the run, from 0.
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
    """Add labels with units to a trace of seconds, and return it."""
    trace["customdata"] = [written_time(y) if y else "" for y in trace["y"]]
    trace["hovertemplate"] = "%{fullData.name} %{customdata}<extra></extra>"
    return trace


def plain(text: str) -> str:
    """Return a text shortened for a legend, and escaped, because plotly.js interprets markup."""
    return html.escape(_short(text), quote=False)


def of_run(run: Run, runs: Sequence[Run]) -> str:
    """Return the name of a run in parentheses; an empty text if there is only one run."""
    return f" ({_short(run.name)})" if len(runs) > 1 else ""


def _short(text: str) -> str:
    """Return the end of a long text, because paths differ at their ends."""
    return text if len(text) <= _LONGEST_NAME else "…" + text[1 - _LONGEST_NAME :]


def values_of(data: Sequence[Trace]) -> list[Number]:
    """Return all values of some traces."""
    return [y for trace in data for y in trace["y"]]


def unless_empty(data: list[Trace]) -> list[Trace]:
    """Return the traces, or none of them if all are empty."""
    return data if any(value is not None for value in values_of(data)) else []


def layout_of(xaxis: dict[str, Any], yaxis: dict[str, Any], *, legend: bool) -> Layout:
    """Return a layout with two axes."""
    return {"xaxis": xaxis, "yaxis": yaxis, "showlegend": legend}
