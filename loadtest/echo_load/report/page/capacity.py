"""The chart of a search for a capacity: response times against the rate."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from echo_load.report.page import axes, guides
from echo_load.report.page.axes import Number
from echo_load.report.page.seconds import Points
from echo_load.report.page.traces import (
    Chart,
    Run,
    Trace,
    layout_of,
    line,
    of_run,
    unless_empty,
    values_of,
    with_times,
)
from echo_load.results.capacity import CapacityResult, CapacityStep


def capacity(runs: Sequence[Run]) -> list[Chart]:
    """Return the chart of the response time against the rate; none if no run searched for it."""
    data: list[Trace] = []
    shapes: list[guides.Shape] = []
    said = []
    levels: list[Number] = []
    limits = guides.times(runs[0].result) if len(runs) == 1 else []
    shown: tuple[tuple[str, str, Callable[[CapacityStep], float]], ...] = (
        ("p50", "dot", lambda step: step.p50_us),
        ("p99", "solid", lambda step: step.p99_us),
    )
    for number, run in enumerate(runs):
        found = run.result.capacity
        if found is None:
            continue
        steps = sorted(found.steps, key=found.level_of)
        levels += [found.level_of(step) for step in steps]
        for name, dash, read in shown:
            trace = _against_level(found, steps, read, run.name, number)
            trace["name"] = name if len(runs) == 1 else f"{trace['name']} {name}"
            trace["line"]["dash"] = dash
            data.append(trace)
        said.append(f"{found.answer}{of_run(run, runs)}")
        if found.level is not None:
            shapes.append(_knee(found, found.level))
    if not data:
        return []
    shapes += guides.drawn_limits(limits)
    values = [*values_of(data), *(limit.at for limit in limits)]
    layout = layout_of(axes.of_counts(levels), axes.of_times(values), legend=True)
    return [
        Chart(
            "capacity",
            "capacity",
            "Response time against rate",
            f"Each point is a step; the vertical line is the answer: {'; '.join(said)}.",
            unless_empty(data),
            layout | {"shapes": shapes, "hovermode": "closest"},
        )
    ]


def _against_level(
    found: CapacityResult,
    steps: Sequence[CapacityStep],
    read: Callable[[CapacityStep], float],
    name: str,
    number: int,
) -> Trace:
    x: list[Number] = [found.level_of(step) for step in steps]
    # A logarithmic axis has no 0.
    y: list[Number] = [read(step) / 1e6 or None for step in steps]
    trace = with_times(line(Points(x, y, []), name, number))
    trace["hovertemplate"] = "%{fullData.name} at %{x:,.4~g}: %{customdata}<extra></extra>"
    return trace


def _knee(found: CapacityResult, level: float) -> guides.Shape:
    """Return a vertical line at the answer."""
    text = html.escape(found.written(level), quote=False)
    return {
        "type": "line",
        "name": "guide",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "x0": level,
        "x1": level,
        "label": {
            "text": text,
            "textposition": "start",
            "textangle": 0,
            "xanchor": "right",
            "yanchor": "bottom",
            "padding": 4,
        },
    }
