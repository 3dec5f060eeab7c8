"""Charts of several targets by the second, with a line for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from echo_load.report.page import axes
from echo_load.report.page.over_time import in_seconds, over_time, space_for_parts
from echo_load.report.page.seconds import Aggregate, points
from echo_load.report.page.traces import (
    COLOURS,
    Chart,
    Run,
    Trace,
    line,
    unless_empty,
    values_of,
    with_times,
)
from echo_load.results.result import Second, TargetResult

# Six lines share the space of a chart.
_MOST_POINTS = 300


def targets(runs: Sequence[Run]) -> list[Chart]:
    """Return the charts of the targets of a single run; none if it has one target."""
    if len(runs) > 1 or not runs[0].result.by_target:
        return []
    (run,) = runs
    shown = _slowest(run.result.by_target)
    which = "each target" if len(shown) == len(run.result.by_target) else _which(run)
    messages = _lines(run, shown, lambda one: one.messages, "mean")
    times = [with_times(one) for one in _lines(run, shown, in_seconds(_p99), "highest")]
    layout = over_time(runs, times)
    axis = axes.of_times(values_of(times), extra=space_for_parts(layout))
    return [
        Chart(
            "target-throughput",
            "by-target",
            "Throughput by target",
            f"Messages per second of {which}.",
            unless_empty(messages),
            over_time(runs, messages) | {"showlegend": True},
        ),
        Chart(
            "target-response",
            "by-target",
            "p99 by target",
            f"99th percentile of the response time of {which}. Logarithmic scale.",
            unless_empty(times),
            layout | {"yaxis": axis, "showlegend": True},
        ),
    ]


def _p99(one: Second) -> float:
    return one.p99_us


def _which(run: Run) -> str:
    return f"the {COLOURS} of {len(run.result.by_target)} targets with the highest p99"


def _slowest(found: Sequence[TargetResult]) -> list[TargetResult]:
    """Return as many targets as there are colours, those with the highest p99, in their order."""
    slowest = sorted(range(len(found)), key=lambda at: -found[at].latency_us.response.p99)
    return [found[at] for at in sorted(slowest[:COLOURS])]


def _lines(
    run: Run,
    shown: Sequence[TargetResult],
    read: Callable[[Second], float | int | None],
    keep: Aggregate,
) -> list[Trace]:
    return [
        line(
            points(replace(run.result, series=one.series), read, keep, most=_MOST_POINTS),
            one.target,
            number,
        )
        for number, one in enumerate(shown)
    ]
