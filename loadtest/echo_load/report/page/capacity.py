"""The chart of a search for a capacity: response times against the rate."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import median_low

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

# Space above the highest value, as a share of the axis.
_HEADROOM = 0.15


def capacity(runs: Sequence[Run]) -> list[Chart]:
    """Return the chart of the response time against the rate; none if no run searched for it."""
    data: list[Trace] = []
    knees: list[tuple[CapacityResult, float]] = []
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
            trace = _medians(found, steps, read, run.name, number)
            trace["name"] = name if len(runs) == 1 else f"{trace['name']} {name}"
            trace["line"]["dash"] = dash
            data += [trace, _single(found, steps, read, trace)]
        said.append(f"{found.answer}{of_run(run, runs)}")
        if found.level is not None:
            knees.append((found, found.level))
    if not data:
        return []
    values = [*values_of(data), *(limit.at for limit in limits)]
    layout = layout_of(axes.of_counts(levels), _with_headroom(axes.of_times(values)), legend=True)
    highest = layout["xaxis"]["range"][1]
    shapes = [
        *(_knee(*knee, number, highest) for number, knee in enumerate(knees)),
        *guides.drawn_limits(limits),
    ]
    return [
        Chart(
            "capacity",
            "capacity",
            "Response time against rate",
            f"Each point is a step, the lines are the medians of the steps at each rate; the "
            f"vertical line is the answer: {'; '.join(said)}.",
            unless_empty(data),
            layout | {"shapes": shapes, "hovermode": "closest"},
        )
    ]


def _medians(
    found: CapacityResult,
    steps: Sequence[CapacityStep],
    read: Callable[[CapacityStep], float],
    name: str,
    number: int,
) -> Trace:
    """Return a line through the median of the steps at each level."""
    x: list[Number] = []
    y: list[Number] = []
    for level, same in groupby(steps, key=found.level_of):
        x.append(level)
        # A logarithmic axis has no 0.
        y.append(median_low([read(step) for step in same]) / 1e6 or None)
    trace = with_times(line(Points(x, y, []), name, number))
    trace["hovertemplate"] = "%{fullData.name} at %{x:,.4~g}: %{customdata}<extra></extra>"
    return trace


def _single(
    found: CapacityResult,
    steps: Sequence[CapacityStep],
    read: Callable[[CapacityStep], float],
    medians: Trace,
) -> Trace:
    """Return a small point for each step."""
    single = medians | {
        "mode": "markers",
        "showlegend": False,
        "marker": {"symbol": "circle-open", "size": 4},
        "x": [found.level_of(step) for step in steps],
        "y": [read(step) / 1e6 or None for step in steps],
    }
    return with_times(single) | {"hovertemplate": medians["hovertemplate"]}


def _with_headroom(axis: axes.Axis) -> axes.Axis:
    """Return a logarithmic axis with space for a label above everything else."""
    if "range" not in axis:
        return axis
    low, high = axis["range"]
    return axis | {"range": [low, high + _HEADROOM * (high - low)]}


def _knee(found: CapacityResult, level: float, number: int, highest: float) -> guides.Shape:
    """Return a vertical line at the answer, with its label on the side that has space.

    Args:
        found: the search.
        level: its answer.
        number: number of the search in the chart, from 0; its label is that much lower.
        highest: end of the axis.
    """
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
            "textposition": "end",
            "textangle": 0,
            "xanchor": "right" if level > highest / 2 else "left",
            "yanchor": "top",
            "padding": 4 + 14 * number,
        },
    }
