"""Charts of a test by the second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from echo_load.plan.thresholds import written_rate, written_time
from echo_load.report.page import axes, guides
from echo_load.report.page.axes import Number
from echo_load.report.page.due import due_by_second
from echo_load.report.page.seconds import MOST_POINTS, Aggregate, Points, points
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
    """Return the chart of the messages per second, of a single open loop with those due."""
    data = counted(runs, "answered", lambda one: one.messages)
    speeds = [
        f"{written_rate(run.result.totals.messages_per_second)}{of_run(run, runs)}" for run in runs
    ]
    caption = f"Messages per second; on average {', '.join(speeds)}."
    due = due_by_second(runs[0].result) if len(runs) == 1 else {}
    if due and unless_empty(data):
        data.append(_due_line(runs[0], due))
        caption += " The dashed line is the number of messages that were due."
    layout = over_time(runs, data, guides.rates(runs[0].result) if len(runs) == 1 else [])
    return Chart(
        "throughput",
        "time",
        "Throughput",
        caption,
        unless_empty(data),
        layout | {"showlegend": len(data) > 1},
    )


def _due_line(run: Run, due: dict[int, float]) -> Trace:
    trace = line(points(run.result, lambda one: due.get(one.second)), "due", 0)
    trace["line"] |= {"dash": "6px,4px", "width": 2}
    return trace | {"mode": "lines", "meta": {"colour": "due"}}


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
            found = _points(run, runs, in_seconds(read), "highest")
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
    layout = over_time(runs, data, limits)
    values = [*values_of(data), *(limit.at for limit in limits)]
    times = axes.of_times(values, extra=space_for_parts(layout))
    layout |= {"yaxis": times, "showlegend": True}
    lines = "p50 is dotted, p99 is solid" if len(runs) > 1 else "the highest line is the slowest"
    return Chart(
        "response-over-time",
        "time",
        "Response time by the second",
        f"Percentiles of the messages of each second; {lines}. Logarithmic scale.",
        unless_empty(data),
        layout,
    )


def jitter(runs: Sequence[Run]) -> list[Chart]:
    """Return the chart of the jitter; none if no run was over UDP."""
    known = [(run, run.result.totals.jitter_us) for run in runs]
    means = [f"{written_time(us / 1e6)}{of_run(run, runs)}" for run, us in known if us is not None]
    if not means:
        return []
    data = counted(runs, "jitter", in_seconds(lambda one: one.jitter_us), "highest", filled=False)
    data = [with_times(trace) for trace in data]
    layout = over_time(runs, data)
    times = axes.of_times(values_of(data), extra=space_for_parts(layout))
    return [
        Chart(
            "jitter",
            "time",
            "Jitter",
            f"Of the round trips over UDP (RFC 3550); on average {', '.join(means)}. "
            "Logarithmic scale.",
            unless_empty(data),
            layout | {"yaxis": times},
        )
    ]


def connections(runs: Sequence[Run]) -> Chart:
    """Return the chart of open connections."""
    data = counted(runs, "open", lambda one: one.connections, "last", filled=False)
    for trace in data:
        trace["line"]["shape"] = "hvh"
    opened = [f"{run.result.totals.connections_opened:,}{of_run(run, runs)}" for run in runs]
    return Chart(
        "connections",
        "time",
        "Connections",
        f"Open at the end of each second; opened in all: {', '.join(opened)}.",
        unless_empty(data),
        over_time(runs, data),
    )


def errors(runs: Sequence[Run]) -> Chart:
    """Return the chart of failures by kind; of several runs, all kinds together."""
    total = sum(sum(run.result.totals.errors.values()) for run in runs)
    kinds = sorted({kind for run in runs for kind in run.result.totals.errors})
    caption = f"Failures per second; {total:,} in all: {', '.join(kinds)}."
    data = [_error_bars(runs[0], kind, index) for index, kind in enumerate(kinds)]
    if len(runs) > 1:
        data = counted(runs, "failed", lambda one: sum(one.errors.values()))
    layout = over_time(runs, data) | {"barmode": "stack", "showlegend": True}
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


def _error_bars(run: Run, kind: str, index: int) -> Trace:
    found = points(run.result, lambda one: one.errors.get(kind, 0))
    return {
        "type": "bar",
        "name": plain(kind),
        "x": found.x,
        "y": found.y,
        "width": max(found.widths, default=1) * 0.8,
        "marker": {"pattern": {"shape": PATTERNS[index % len(PATTERNS)], "solidity": 0.35}},
        "hovertemplate": "%{fullData.name} %{y:,.4~g}<extra></extra>",
        "meta": {"colour": f"error-{index % COLOURS}"},
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


def counted(
    runs: Sequence[Run],
    what: str,
    read: Callable[[Second], Number],
    keep: Aggregate = "mean",
    *,
    filled: bool = True,
) -> list[Trace]:
    """Return a line of one figure for each run.

    Args:
        runs: the runs.
        what: name of the line of a single run; several ones have the names of their runs.
        read: function that returns the figure of a second; None if it has none.
        keep: the value that represents several seconds at one point.
        filled: whether the area below the line of a single run is filled.
    """
    data = [
        line(_points(run, runs, read, keep), run.name if len(runs) > 1 else what, number)
        for number, run in enumerate(runs)
    ]
    # With gaps in the line, plotly.js would fill them, too.
    if filled and len(runs) == 1 and None not in data[0]["y"]:
        data[0]["fill"] = "tozeroy"
    return data


def _points(
    run: Run, runs: Sequence[Run], read: Callable[[Second], Number], keep: Aggregate
) -> Points:
    """Return the points of a run, fewer ones if many runs share the chart."""
    return points(run.result, read, keep, most=2 * MOST_POINTS // max(2, len(runs)))


def over_time(
    runs: Sequence[Run], data: Sequence[Trace], limits: Sequence[guides.Guide] = ()
) -> Layout:
    """Return the layout of a chart over time, with its parts and thresholds.

    The axis of a single run also shows the time on the clock.
    """
    last = max((one.second for run in runs for one in run.result.series), default=0)
    values = [*values_of(data), *(limit.at for limit in limits)]
    drawn = guides.drawn_over_time([run.result for run in runs], limits)
    # Space for the numbers of the parts.
    yaxis = axes.of_counts(values, extra=0.15 if in_parts(drawn) else 0.08)
    at = began(runs)
    layout = layout_of(axes.of_seconds(last, at), yaxis, legend=len(runs) > 1) | drawn
    return layout | (
        {"meta": {"clock": at.isoformat(timespec="milliseconds")}} if at is not None else {}
    )


def began(runs: Sequence[Run]) -> datetime | None:
    """Return when the first second of a single run began; None if that is unknown."""
    at = runs[0].result.series_started_at if len(runs) == 1 else None
    try:
        return datetime.fromisoformat(at) if at else None
    except ValueError:
        return None


def in_parts(layout: Layout) -> bool:
    """Return whether a layout shows stages or repeats."""
    return any(shape["type"] == "rect" for shape in layout["shapes"])


def space_for_parts(layout: Layout) -> float:
    """Return the space that the numbers of stages or repeats need, as a share of an axis."""
    return 0.12 if in_parts(layout) else 0.0


def in_seconds(read: Callable[[Second], float | None]) -> Callable[[Second], Number]:
    """Return a function that reads seconds instead of microseconds.

    It returns None instead of 0, which a logarithmic axis does not have.
    """
    return lambda one: (read(one) or 0.0) / 1e6 or None
