"""Charts of the generators by the second: their processor time, and how late they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from echo_core.units import format_count
from echo_load.report.page import axes, guides
from echo_load.report.page.over_time import (
    counted,
    in_parts,
    in_seconds,
    over_time,
    space_for_parts,
)
from echo_load.report.page.traces import (
    Chart,
    Run,
    Trace,
    of_run,
    unless_empty,
    values_of,
    with_times,
)
from echo_load.results.result import Second

_DELAYS: tuple[tuple[str, str, str, Callable[[Second], float | None]], ...] = (
    ("messages", "solid", "run-0", lambda one: one.late_p99_us),
    ("event loop", "dot", "run-1", lambda one: one.lag_p99_us),
)


def generators(runs: Sequence[Run]) -> list[Chart]:
    """Return the charts of the generators; without data for results of earlier versions."""
    return [_processors(runs), _delays(runs)]


def _processors(runs: Sequence[Run]) -> Chart:
    data = counted(runs, "generators", lambda one: one.generator_cores)
    for trace in data:
        trace["hovertemplate"] = "%{fullData.name} %{y:.2f} cores<extra></extra>"
    processes = max(run.result.generator.processes for run in runs)
    used = [f"{run.result.generator.cpu_cores:.2f}{of_run(run, runs)}" for run in runs]
    limits = []
    if len(runs) == 1 and runs[0].result.plan.driven_by != "threads":
        limits = [guides.Guide(f"all that {format_count(processes, 'process')} can use", processes)]
    layout = over_time(runs, data, limits)
    # Space for the label of the limit, and for the numbers of the parts.
    extra = 0.28 if in_parts(layout) else 0.15
    layout["yaxis"] = axes.of_cores(values_of(data), processes, extra=extra)
    return Chart(
        "processors",
        "generators",
        "Processor cores busy",
        f"Cores that the generators kept busy; on average {', '.join(used)}. "
        "At its limit a generator measures itself instead of the target.",
        unless_empty(data),
        layout,
    )


def _delays(runs: Sequence[Run]) -> Chart:
    data: list[Trace] = []
    for name, dash, colour, read in _DELAYS:
        lines = counted(runs, name, in_seconds(read), "highest", filled=False)
        for trace in lines:
            trace["line"]["dash"] = dash
            if len(runs) == 1:
                trace["meta"] = {"colour": colour}
            else:
                # One entry per run in the legend is enough: both lines have its colour.
                trace |= {"name": f"{trace['name']} {name}", "showlegend": name == "event loop"}
            if any(trace["y"]):
                data.append(with_times(trace))
    layout = over_time(runs, data)
    times = axes.of_times(values_of(data), extra=space_for_parts(layout))
    layout |= {"yaxis": times, "showlegend": True}
    open_loop = any(run.result.plan.open_loop for run in runs)
    due = "how late messages that were due were sent (solid), and " if open_loop else ""
    return Chart(
        "delays",
        "generators",
        "Delays of the generator",
        f"99th percentile, by the second, of {due}how late the event loop was (dotted). "
        "Logarithmic scale.",
        unless_empty(data),
        layout,
    )
