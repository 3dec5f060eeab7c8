"""The chart of the payload bytes per second."""

from __future__ import annotations

from collections.abc import Sequence

from echo_core.units import format_bandwidth
from echo_load.report.page import axes
from echo_load.report.page.over_time import counted, over_time
from echo_load.report.page.traces import Chart, Run, Trace, of_run, unless_empty, values_of
from echo_load.results.result import Second

# Up to this share of the highest bandwidth, what was sent and what came back look the same.
_SAME = 0.02


def bandwidth(runs: Sequence[Run]) -> Chart:
    """Return the chart of the payload received back; of a single run, also sent if that differs."""
    received = counted(runs, "received back", lambda one: one.bytes_received)
    data = [_in_bytes(trace) for trace in received]
    caption = f"Payload received back, per second; on average {', '.join(_averages(runs))}."
    if len(runs) == 1 and _differ(runs[0].result.series):
        (sent,) = counted(runs, "sent", lambda one: one.bytes_sent, filled=False)
        sent["line"]["dash"] = "dash"
        data.append(_in_bytes(sent) | {"meta": {"colour": "run-1"}})
    elif len(runs) == 1:
        caption += " As much was sent."
    values = values_of(data)
    layout = over_time(runs, data)
    layout["yaxis"] = axes.of_bytes(values, layout["yaxis"]["range"][1])
    return Chart(
        "bandwidth",
        "time",
        "Bandwidth",
        caption,
        unless_empty(data) if any(values) else [],
        layout | {"showlegend": len(data) > 1},
    )


def _averages(runs: Sequence[Run]) -> list[str]:
    written = []
    for run in runs:
        totals = run.result.totals
        average = totals.bytes_received / totals.seconds if totals.seconds else 0.0
        written.append(f"{format_bandwidth(average)}{of_run(run, runs)}")
    return written


def _in_bytes(trace: Trace) -> Trace:
    """Add labels in bytes and in bits to a line, and return it."""
    trace["customdata"] = ["" if y is None else format_bandwidth(y) for y in trace["y"]]
    trace["hovertemplate"] = "%{fullData.name} %{customdata}<extra></extra>"
    return trace


def _differ(series: Sequence[Second]) -> bool:
    """Return whether what was sent and what came back can be told apart in a chart."""
    highest = max((max(one.bytes_sent, one.bytes_received) for one in series), default=0)
    return any(abs(one.bytes_sent - one.bytes_received) > _SAME * highest for one in series)
