"""The charts of a report, as data: what plotly.js draws, without colours.

A trace says which colour of the page's palette it has (`meta.colour`), so that the page can follow
the reader's light or dark setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from echo_load.latency import LatencyHistogram
from echo_load.result import Result, Second
from echo_load.thresholds import written_time

# More points than a screen has columns show nothing more.
_MOST_POINTS = 1500
_BINS_A_DECADE = 30
_POINTS_A_NINE = 25
# Of a chart, the most vertical lines between stages and repeats that do not hide it.
_MOST_BORDERS = 12
_TIME_ON_HOVER = "%{y:.3~s}s (%{fullData.name})<extra></extra>"

Trace = dict[str, Any]
Number = float | int | None


class Run(NamedTuple):
    """A result and what it is called.

    Attributes:
        name: of the run.
        result: what it came to.
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
        name: of its place in the page.
        title: what it shows.
        caption: how to read it, and what it says in words.
        data: traces as plotly.js takes them; none if there is nothing to show.
        layout: its layout, likewise.
    """

    name: str
    title: str
    caption: str
    data: list[Trace]
    layout: dict[str, Any]


def charts(runs: Sequence[Run]) -> list[Chart]:
    """All charts of some runs, laid over one another."""
    return [
        _throughput(runs),
        _response_over_time(runs),
        _distribution(runs),
        _percentiles(runs),
        _connections(runs),
        _spread(runs),
        _response_and_service(runs),
        _errors(runs),
    ]


def _throughput(runs: Sequence[Run]) -> Chart:
    data = [
        _over_time(run, lambda one: one.messages, number, runs, fill=len(runs) == 1)
        for number, run in enumerate(runs)
    ]
    speeds = [f"{run.result.totals.messages_per_second:,.0f}{_of(run, runs)}" for run in runs]
    return Chart(
        "throughput",
        "Throughput",
        f"Messages in each second. On average {', '.join(speeds)} messages a second.",
        data if any(run.result.series for run in runs) else [],
        _time_layout(runs, {"rangemode": "tozero", "tickformat": "~s"}),
    )


def _response_over_time(runs: Sequence[Run]) -> Chart:
    shown: tuple[tuple[str, str, Callable[[Second], float]], ...] = (
        ("p50", "dot", lambda one: one.p50_us),
        ("p90", "solid", lambda one: one.p90_us),
        ("p99", "solid", lambda one: one.p99_us),
        ("p99.9", "solid", lambda one: one.p99_9_us),
        ("max", "dash", lambda one: one.max_us),
    )
    if len(runs) > 1:
        shown = (shown[0], shown[2])
    data: list[Trace] = []
    values: list[Number] = []
    for number, run in enumerate(runs):
        for place, (name, dash, read) in enumerate(shown):
            trace = _over_time(run, _in_seconds(read), number, runs, most=True)
            trace["line"] = {"dash": dash, "width": 2}
            trace["name"] = name if len(runs) == 1 else f"{run.name} {name}"
            trace["meta"] = {"colour": place if len(runs) == 1 else number}
            trace["hovertemplate"] = _TIME_ON_HOVER
            data.append(trace)
            values += trace["y"]
    layout = _time_layout(runs, _log_times(values), legend=True)
    return Chart(
        "response-over-time",
        "Response time",
        "Percentiles of the response time in each second, on a logarithmic scale.",
        data if any(values) else [],
        layout,
    )


def _distribution(runs: Sequence[Run]) -> Chart:
    data: list[Trace] = []
    for number, run in enumerate(runs):
        bounds = _log_bounds(run.response)
        up_to = run.response.count_up_to(bounds)
        shares = [(b - a) / run.response.count * 100 for a, b in pairwise(up_to)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hvh", "width": 2},
                "fill": "tozeroy",
                "name": run.name,
                "x": [math.sqrt(a * b) / 1e9 for a, b in pairwise(bounds)],
                "y": shares,
                "hovertemplate": "%{x:.3~s}s: %{y:.2f} %<extra></extra>",
                "meta": {"colour": number},
            }
        )
    values: list[Number] = [x for trace in data for x in trace["x"]]
    return Chart(
        "distribution",
        "Distribution",
        "Share of the messages by their response time, on a logarithmic scale.",
        data if values else [],
        _layout(
            xaxis=_log_times(values),
            yaxis={"ticksuffix": " %", "rangemode": "tozero"},
            legend=len(runs) > 1,
        ),
    )


def _percentiles(runs: Sequence[Run]) -> Chart:
    data = [_percentile_curve(run.response, run.name, number) for number, run in enumerate(runs)]
    said = [
        f"99 % within {written_time(run.result.latency_us.response.p99 / 1e6)}{_of(run, runs)}"
        for run in runs
        if run.response.count
    ]
    return Chart(
        "percentiles",
        "Percentiles",
        f"Response time that so many messages do not exceed. {'; '.join(said)}.",
        *_percentile_figure(data, legend=len(runs) > 1),
    )


def _response_and_service(runs: Sequence[Run]) -> Chart:
    data = []
    for number, run in enumerate(runs):
        if not run.result.plan.open_loop:
            continue
        for colour, (name, times, dash) in enumerate(
            (("response", run.response, "solid"), ("service", run.service, "dash"))
        ):
            label = name if len(runs) == 1 else f"{run.name} {name}"
            trace = _percentile_curve(times, label, number if len(runs) > 1 else colour)
            trace["line"] = {"dash": dash, "width": 2}
            data.append(trace)
    caption = (
        "Response time counts from when a message was due, service time from when it left: where "
        "the curves part, messages waited for their turn."
        if data
        else "In a closed loop a message is due when it leaves, and both are the same."
    )
    return Chart(
        "response-and-service",
        "Response and service time",
        caption,
        *_percentile_figure(data, legend=True),
    )


def _connections(runs: Sequence[Run]) -> Chart:
    data = [
        _over_time(run, lambda one: one.connections, number, runs, last=True)
        for number, run in enumerate(runs)
    ]
    for trace in data:
        trace["line"] = {"shape": "hv", "width": 2}
    return Chart(
        "connections",
        "Connections",
        "Open at the end of each second.",
        data if any(run.result.series for run in runs) else [],
        _time_layout(runs, {"rangemode": "tozero", "tickformat": "~s"}),
    )


def _errors(runs: Sequence[Run]) -> Chart:
    kinds = sorted({kind for run in runs for one in run.result.series for kind in one.errors})
    data = []
    for number, run in enumerate(runs):
        for place, kind in enumerate(kinds):
            trace = _over_time(run, _count_of(kind), number, runs)
            if not any(trace["y"]):
                continue
            del trace["line"], trace["mode"]
            trace |= {
                "type": "bar",
                "name": kind if len(runs) == 1 else f"{run.name} {kind}",
                "meta": {"colour": place if len(runs) == 1 else number},
            }
            data.append(trace)
    total = sum(sum(run.result.totals.errors.values()) for run in runs)
    caption = f"By kind, in each second; {total:,} in all." if total else "There were none."
    layout = _time_layout(runs, {"rangemode": "tozero", "tickformat": "~s"}, legend=True)
    return Chart("errors", "Errors", caption, data, {**layout, "barmode": "stack"})


def _spread(runs: Sequence[Run]) -> Chart:
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": run.name,
            "line": {"shape": "hv", "width": 2},
            "x": list(range(101)),
            "y": run.result.spread.percentiles,
            "hovertemplate": "%{x} %: %{y:,} messages<extra></extra>",
            "meta": {"colour": number},
        }
        for number, run in enumerate(runs)
        if run.result.spread.percentiles
    ]
    said = [
        f"{run.result.spread.least:,} to {run.result.spread.most:,}{_of(run, runs)}" for run in runs
    ]
    return Chart(
        "spread",
        "Spread over connections",
        "Messages that so many percent of the connections do not exceed: the flatter, the fairer. "
        f"{', '.join(said)}.",
        data,
        _layout(
            xaxis={"ticksuffix": " %", "range": [0, 100]},
            yaxis={"rangemode": "tozero", "tickformat": "~s"},
            legend=len(runs) > 1,
        ),
    )


def _of(run: Run, runs: Sequence[Run]) -> str:
    return f" ({run.name})" if len(runs) > 1 else ""


def _in_seconds(read: Callable[[Second], float]) -> Callable[[Second], Number]:
    """Microseconds as seconds; where nothing was measured, nothing: logarithms know no 0."""
    return lambda one: read(one) / 1e6 or None


def _count_of(kind: str) -> Callable[[Second], Number]:
    return lambda one: one.errors.get(kind, 0)


def _over_time(
    run: Run,
    read: Callable[[Second], Number],
    number: int,
    runs: Sequence[Run],
    *,
    fill: bool = False,
    most: bool = False,
    last: bool = False,
) -> Trace:
    """A figure by the second, thinned out to the highest or the last one, or the average."""
    x: list[Number] = []
    y: list[Number] = []
    previous = -1
    for group in _groups(run.result.series):
        if x and group[0].second - previous > 1:
            x.append(previous + 1)
            y.append(None)
        found = [value for one in group if (value := read(one)) is not None]
        x.append(group[0].second)
        if not found:
            y.append(None)
        else:
            y.append(max(found) if most else found[-1] if last else sum(found) / len(found))
        previous = group[-1].second
    trace: Trace = {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "name": run.name,
        "line": {"width": 2},
        "x": x,
        "y": y,
        "meta": {"colour": number if len(runs) > 1 else 0},
        "hovertemplate": "%{fullData.name}: %{y:,.0f}<extra></extra>",
    }
    # A filled area would go on through a gap.
    return trace | ({"fill": "tozeroy"} if fill and None not in y else {})


def _groups(series: Sequence[Second]) -> Iterator[Sequence[Second]]:
    """Seconds that share a point: one, or more where there are too many for a screen."""
    size = math.ceil(len(series) / _MOST_POINTS) or 1
    return (series[begin : begin + size] for begin in range(0, len(series), size))


def _percentile_curve(times: LatencyHistogram, name: str, colour: int) -> Trace:
    """The times over 1/(1 - share), on which each further nine is as far away as the last."""
    nines = math.log10(times.count) if times.count > 1 else 0.0
    points = [10 ** (step / _POINTS_A_NINE) for step in range(int(nines * _POINTS_A_NINE) + 1)]
    percentiles = [100 * (1 - 1 / point) for point in points]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "line": {"width": 2},
        "x": points if times.count else [],
        "y": [value / 1e6 for value in times.percentiles_us(percentiles)] if times.count else [],
        "customdata": [f"{percentile:.7g} %" for percentile in percentiles],
        "hovertemplate": f"%{{customdata}} within {_TIME_ON_HOVER}",
        "meta": {"colour": colour},
    }


def _percentile_figure(data: list[Trace], *, legend: bool) -> tuple[list[Trace], dict[str, Any]]:
    values = [y for trace in data for y in trace["y"]]
    nines = max((math.log10(trace["x"][-1]) for trace in data if trace["x"]), default=1.0)
    shown = [2, *(10**nine for nine in range(1, math.floor(nines) + 1))]
    xaxis = {
        "type": "log",
        "tickangle": 0,
        "tickvals": shown,
        "ticktext": [f"{100 * (1 - 1 / point):.10g} %" for point in shown],
    }
    layout = _layout(xaxis=xaxis, yaxis=_log_times(values), legend=legend)
    layout["hovermode"] = "closest"
    return (data if values else []), layout


def _log_bounds(times: LatencyHistogram) -> list[int]:
    """Bounds of bins in nanoseconds, from the shortest to the longest, each as much larger."""
    if not times.count:
        return []
    (least,) = times.percentiles_us([0])
    low = math.floor(math.log10(max(least * 1e3, 1)) * _BINS_A_DECADE) - 1
    high = math.ceil(math.log10(max(times.max_ns, 1)) * _BINS_A_DECADE) + 1
    return [round(10 ** (step / _BINS_A_DECADE)) for step in range(low, high + 1)]


def _log_times(values: Sequence[Number]) -> dict[str, Any]:
    """A logarithmic axis of seconds, with marks as people write times."""
    known = [value for value in values if value]
    if not known:
        return {"type": "log"}
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    marks = [step * 10.0**decade for decade in range(low, high + 1) for step in steps]
    return {"type": "log", "tickvals": marks, "ticktext": [written_time(mark) for mark in marks]}


def _time_layout(
    runs: Sequence[Run], yaxis: dict[str, Any], *, legend: bool = False
) -> dict[str, Any]:
    """Of what is over time: seconds, and for a single run where stages and repeats begin."""
    layout = _layout(
        xaxis={"ticksuffix": " s", "rangemode": "tozero"},
        yaxis=yaxis,
        legend=legend or len(runs) > 1,
    )
    borders = _borders(runs[0].result.series) if len(runs) == 1 else []
    if 0 < len(borders) <= _MOST_BORDERS:
        layout["shapes"] = [
            {"type": "line", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1} for x in borders
        ]
    return layout


def _borders(series: Sequence[Second]) -> list[int]:
    return [
        after.second
        for before, after in pairwise(series)
        if (before.repeat, before.stage) != (after.repeat, after.stage)
    ]


def _layout(*, xaxis: dict[str, Any], yaxis: dict[str, Any], legend: bool) -> dict[str, Any]:
    return {"xaxis": xaxis, "yaxis": yaxis, "showlegend": legend}
