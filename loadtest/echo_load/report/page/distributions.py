"""Charts of a whole test: latencies, and the spread of messages over the connections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.thresholds import written_time
from echo_load.report.page import axes, guides
from echo_load.report.page.axes import Number
from echo_load.report.page.seconds import Points
from echo_load.report.page.traces import (
    Chart,
    Layout,
    Run,
    Trace,
    layout_of,
    line,
    of_run,
    unless_empty,
    values_of,
    with_times,
)
from echo_load.results.result import Spread

_BINS_PER_DECADE = 30
_POINTS_PER_NINE = 25


def distribution(runs: Sequence[Run]) -> Chart:
    """Return the chart of the distribution of the response time."""
    data: list[Trace] = []
    for number, run in enumerate(runs):
        bounds = _log_bounds(run.response)
        up_to = run.response.count_up_to(bounds)
        shares = [round((b - a) / run.response.count * 100, 4) for a, b in pairwise(up_to)]
        x: list[Number] = [float(f"{math.sqrt(a * b) / 1e9:.5g}") for a, b in pairwise(bounds)]
        trace = line(Points(x, list(shares), []), run.name, number)
        trace["line"] |= {"shape": "hvh", "width": 2}
        trace["fill"] = "tozeroy"
        trace["customdata"] = [written_time(one or 0) for one in x]
        trace["hovertemplate"] = "%{fullData.name} about %{customdata}: %{y:.3~g} %<extra></extra>"
        trace["mode"] = "lines"
        data.append(trace)
    values: list[Number] = [x for trace in data for x in trace["x"]]
    layout = layout_of(
        axes.of_times(values, below=True), axes.of_shares(values_of(data)), legend=len(runs) > 1
    )
    layout |= {"hovermode": "closest"}
    if len(runs) == 1:
        layout |= guides.drawn_across(guides.percentiles(runs[0].result), layout["xaxis"])
    else:
        data += [_at_its_peak(trace) for trace in data if trace["x"]]
    return Chart(
        "distribution",
        "latency",
        "Distribution",
        "Share of the messages by their response time, on a logarithmic scale.",
        data if values else [],
        layout,
    )


def _at_its_peak(trace: Trace) -> Trace:
    """Return a marker at the peak of a distribution, and show that in the legend instead."""
    trace["showlegend"] = False
    peak = trace["y"].index(max(trace["y"]))
    marked = {name: [trace[name][peak]] for name in ("x", "y", "customdata")}
    return trace | marked | {"mode": "lines+markers", "fill": "none", "showlegend": True}


def percentiles(runs: Sequence[Run]) -> Chart:
    """Return the chart of the response time by percentile."""
    data = [_percentile_curve(run.response, run.name, number) for number, run in enumerate(runs)]
    if len(runs) == 1:
        data[0]["mode"] = "lines"
    captions = [
        f"99 % within {written_time(run.result.latency_us.response.p99 / 1e6)}{of_run(run, runs)}"
        for run in runs
        if run.response.count
    ]
    return Chart(
        "percentiles",
        "latency",
        "Percentiles",
        "Response time by percentile of the messages, on a scale that gives each further nine "
        f"the same space. {'; '.join(captions)}.",
        *_percentile_chart(data, legend=len(runs) > 1),
    )


def response_and_service(runs: Sequence[Run]) -> Chart:
    """Return the chart of response time and service time by percentile, for open loops only."""
    data = []
    for number, run in enumerate(runs):
        if not run.result.plan.open_loop:
            continue
        for index, (name, times, dash) in enumerate(
            (("response", run.response, "solid"), ("service", run.service, "dash"))
        ):
            several = len(runs) > 1
            trace = _percentile_curve(times, run.name, number if several else index)
            trace["name"] = f"{trace['name']} {name}" if several else name
            trace["line"]["dash"] = dash
            if not several:
                trace["mode"] = "lines"
            elif index:
                # One entry per run in the legend is enough: both curves have its colour.
                trace["showlegend"] = False
            data.append(trace)
    caption = (
        "Response time counts from when a message was due, service time from when it was sent: "
        "where the curves differ, messages were sent late. Service time is dashed."
        if data
        else "In a closed loop a message is due when it is sent, so both are the same."
    )
    return Chart(
        "response-and-service",
        "latency",
        "Response against service time",
        caption,
        *_percentile_chart(data, legend=True),
    )


def spread(runs: Sequence[Run]) -> Chart:
    """Return the chart of the messages of a connection by percentile."""
    data = []
    for number, run in enumerate(runs):
        spread = run.result.spread
        trace = line(Points(list(range(101)), list(spread.percentiles), []), run.name, number)
        trace["line"] |= {"shape": "hv", "width": 2}
        trace["hovertemplate"] = "%{fullData.name} %{x} %: %{y:,} messages<extra></extra>"
        if len(runs) == 1:
            trace["mode"] = "lines"
        if spread.most:
            data.append(trace)
    ranges = [f"{_from_to(run.result.spread)}{of_run(run, runs)}" for run in runs]
    return Chart(
        "spread",
        "latency",
        "Spread over connections",
        "Messages by percentile of the connections; a flat line means that all were served "
        f"equally. {', '.join(ranges)} messages per connection.",
        data,
        layout_of(axes.of_connections(), axes.of_counts(values_of(data)), legend=len(runs) > 1)
        | {"hovermode": "closest"},
    )


def _from_to(spread: Spread) -> str:
    if spread.least == spread.most:
        return f"{spread.most:,}"
    return f"{spread.least:,} to {spread.most:,}"


def _percentile_curve(times: LatencyHistogram, name: str, number: int) -> Trace:
    """Return the curve of times over 1/(1 - share).

    On a logarithmic axis of these values, each further nine takes the same space.
    """
    nines = math.log10(times.count) if times.count > 1 else 0.0
    steps = range(int(nines * _POINTS_PER_NINE) + 1) if times.count else range(0)
    x: list[Number] = [float(f"{10 ** (step / _POINTS_PER_NINE):.6g}") for step in steps]
    percentiles = [100 * (1 - 1 / point) for point in x if point]
    y: list[Number] = [float(f"{us / 1e6:.5g}") for us in times.percentiles_us(percentiles)]
    trace = with_times(line(Points(x, y, []), name, number))
    trace["marker"] |= {"size": 6, "maxdisplayed": 12}
    trace["line"]["width"] = 2
    # One more digit than there are nines.
    trace["text"] = [
        f"{percentile:.{int(math.log10(point or 1)) + 1}f} %"
        for point, percentile in zip(x, percentiles, strict=True)
    ]
    trace["hovertemplate"] = "%{fullData.name} %{text} within %{customdata}<extra></extra>"
    return trace


def _percentile_chart(data: list[Trace], *, legend: bool) -> tuple[list[Trace], Layout]:
    nines = max((math.log10(trace["x"][-1]) for trace in data if trace["x"]), default=1.0)
    layout = layout_of(axes.of_nines(nines), axes.of_times(values_of(data)), legend=legend)
    return unless_empty(data), layout | {"hovermode": "closest"}


def _log_bounds(times: LatencyHistogram) -> list[int]:
    """Return bounds of bins in nanoseconds, each larger than the last by a constant factor."""
    if not times.count:
        return []
    (least,) = times.percentiles_us([0])
    low = math.floor(math.log10(max(least * 1e3, 1)) * _BINS_PER_DECADE) - 1
    high = math.ceil(math.log10(max(times.max_ns, 1)) * _BINS_PER_DECADE) + 1
    return [round(10 ** (step / _BINS_PER_DECADE)) for step in range(low, high + 1)]
