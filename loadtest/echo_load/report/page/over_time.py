"""Charts of a test by the second."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from echo_load.plan.thresholds import written_rate
from echo_load.report.page import axes, guides
from echo_load.report.page.axes import Number
from echo_load.report.page.seconds import Aggregate, points
from echo_load.report.page.traces import (
    COLOURS,
    PATTERNS,
    Chart,
    Layout,
    Run,
    Trace,
    layout_of,
    line,
    of_run,
    plain,
    unless_empty,
    values_of,
    with_times,
)
from echo_load.results.result import Second


def throughput(runs: Sequence[Run]) -> Chart:
    """Return the chart of the messages per second."""
    data = [_counted(run, number, lambda one: one.messages) for number, run in enumerate(runs)]
    if len(runs) == 1 and None not in data[0]["y"]:
        # With gaps in the line, plotly.js would fill them, too.
        data[0]["fill"] = "tozeroy"
    speeds = [
        f"{written_rate(run.result.totals.messages_per_second)}{of_run(run, runs)}" for run in runs
    ]
    return Chart(
        "throughput",
        "time",
        "Throughput",
        f"Messages per second; on average {', '.join(speeds)}.",
        unless_empty(data),
        _over_time(runs, data, guides.rates(runs[0].result) if len(runs) == 1 else []),
    )


def response(runs: Sequence[Run]) -> Chart:
    """Return the chart of percentiles of the response time; of several runs, only p50 and p99."""
    shown: tuple[tuple[str, str, Callable[[Second], float]], ...] = (
        ("p50", "dot", lambda one: one.p50_us),
        ("p90", "dash", lambda one: one.p90_us),
        ("p99", "solid", lambda one: one.p99_us),
        ("p99.9", "dashdot", lambda one: one.p99_9_us),
        ("max", "longdashdot", lambda one: one.max_us),
    )
    if len(runs) > 1:
        shown = (shown[0], shown[2])
    data: list[Trace] = []
    for number, run in enumerate(runs):
        for name, dash, read in shown:
            found = points(run.result, _in_seconds(read), "highest")
            trace = line(found, run.name, number)
            if len(runs) == 1:
                trace |= {"name": name, "meta": {"colour": name.replace(".", "-")}}
                trace["marker"] |= {"symbol": "circle", "size": 4}
            else:
                # One entry per run in the legend is enough: both lines have its colour.
                trace |= {"name": f"{trace['name']} {name}", "showlegend": name == "p99"}
            trace["line"]["dash"] = dash
            data.append(with_times(trace))
    limits = guides.times(runs[0].result) if len(runs) == 1 else []
    layout = _over_time(runs, data, limits)
    values = [*values_of(data), *(limit.at for limit in limits)]
    # Space for the numbers of the parts.
    extra = 0.3 if _in_parts(layout) else 0.0
    layout |= {"yaxis": axes.of_times(values, extra=extra), "showlegend": True}
    lines = "p50 is dotted, p99 is solid" if len(runs) > 1 else "the highest line is the slowest"
    return Chart(
        "response-over-time",
        "time",
        "Response time by the second",
        f"Percentiles of the messages of each second; {lines}. Logarithmic scale.",
        unless_empty(data),
        layout,
    )


def connections(runs: Sequence[Run]) -> Chart:
    """Return the chart of open connections."""
    data = [
        _counted(run, number, lambda one: one.connections, "last")
        for number, run in enumerate(runs)
    ]
    for trace in data:
        trace["line"]["shape"] = "hvh"
    opened = [f"{run.result.totals.connections_opened:,}{of_run(run, runs)}" for run in runs]
    return Chart(
        "connections",
        "time",
        "Connections",
        f"Open at the end of each second; opened in all: {', '.join(opened)}.",
        unless_empty(data),
        _over_time(runs, data),
    )


def errors(runs: Sequence[Run]) -> Chart:
    """Return the chart of failures by kind; of several runs, all kinds together."""
    total = sum(sum(run.result.totals.errors.values()) for run in runs)
    kinds = sorted({kind for run in runs for kind in run.result.totals.errors})
    caption = f"Failures per second; {total:,} in all: {', '.join(kinds)}."
    data = [_error_bars(runs[0], kind, place) for place, kind in enumerate(kinds)]
    if len(runs) > 1:
        data = [
            _counted(run, number, lambda one: sum(one.errors.values()))
            for number, run in enumerate(runs)
        ]
    layout = _over_time(runs, data) | {"barmode": "stack", "showlegend": True}
    if kinds and not any(values_of(data)):
        # The series has no errors, for example because no connection could be opened.
        caption = f"Failures by kind; {total:,} in all, none of them in a second of the series."
        data, layout = _errors_in_all(runs, kinds)
    elif len(runs) == 1:
        # The bars are stacked, and the axis has to cover their sum.
        stacked = [sum(one.errors.values()) for one in runs[0].result.series]
        layout["yaxis"] = axes.of_counts(stacked, extra=0.15)
    return Chart(
        "errors",
        "time",
        "Errors",
        caption if kinds else "There were none.",
        data if kinds else [],
        layout,
    )


def _error_bars(run: Run, kind: str, place: int) -> Trace:
    found = points(run.result, lambda one: one.errors.get(kind, 0))
    return {
        "type": "bar",
        "name": plain(kind),
        "x": found.x,
        "y": found.y,
        "width": max(found.widths, default=1) * 0.8,
        "marker": {"pattern": {"shape": PATTERNS[place % len(PATTERNS)], "solidity": 0.35}},
        "hovertemplate": "%{fullData.name} %{y:,.4~g}<extra></extra>",
        "meta": {"colour": f"error-{place % COLOURS}"},
    }


def _errors_in_all(runs: Sequence[Run], kinds: Sequence[str]) -> tuple[list[Trace], Layout]:
    data: list[Trace] = [
        {
            "type": "bar",
            "name": plain(run.name),
            "x": [plain(kind) for kind in kinds],
            "y": [run.result.totals.errors.get(kind, 0) for kind in kinds],
            "width": 0.5 / len(runs),
            "marker": {"pattern": {"shape": PATTERNS[number % len(PATTERNS)], "solidity": 0.35}},
            "hovertemplate": "%{x} %{y:,}<extra></extra>",
            "meta": {"colour": f"error-{number % COLOURS}"},
        }
        for number, run in enumerate(runs)
    ]
    yaxis = axes.of_counts(values_of(data))
    return data, layout_of(axes.of_kinds(len(kinds)), yaxis, legend=len(runs) > 1)


def _counted(
    run: Run, number: int, read: Callable[[Second], Number], keep: Aggregate = "mean"
) -> Trace:
    return line(points(run.result, read, keep), run.name, number)


def _over_time(
    runs: Sequence[Run], data: Sequence[Trace], limits: Sequence[guides.Guide] = ()
) -> Layout:
    """Return the layout of a chart over time, with its parts and thresholds."""
    last = max((one.second for run in runs for one in run.result.series), default=0)
    values = [*values_of(data), *(limit.at for limit in limits)]
    drawn = guides.drawn_over_time([run.result for run in runs], limits)
    # Space for the numbers of the parts.
    yaxis = axes.of_counts(values, extra=0.15 if _in_parts(drawn) else 0.08)
    return layout_of(axes.of_seconds(last), yaxis, legend=len(runs) > 1) | drawn


def _in_parts(layout: Layout) -> bool:
    return any(shape["type"] == "rect" for shape in layout["shapes"])


def _in_seconds(read: Callable[[Second], float]) -> Callable[[Second], Number]:
    """Return a function that reads seconds instead of microseconds.

    It returns None instead of 0, which a logarithmic axis does not have.
    """
    return lambda one: read(one) / 1e6 or None
