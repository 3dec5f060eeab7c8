"""The chart of the pauses after which idle connections were kept or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from echo_load.plan.thresholds import written_time
from echo_load.report.page import axes
from echo_load.report.page.axes import Number
from echo_load.report.page.traces import SYMBOLS, Chart, Run, Trace, of_run, plain
from echo_load.results.idle import IdleRung

# Without the colour of what was kept.
_DROPPED = ("error-0", "error-2", "error-3", "error-4", "error-5")


def idle(runs: Sequence[Run]) -> list[Chart]:
    """Return the chart of the pauses and their outcomes; none if no run was about idleness."""
    rows: list[str] = []
    outcomes: dict[str, list[tuple[str, IdleRung]]] = {}
    said = []
    for run in runs:
        found = run.result.idle
        if found is None:
            continue
        said.append(f"{found.answer}{of_run(run, runs)}")
        named = f"{run.name}: " if len(runs) > 1 else ""
        for rung in found.rungs:
            row = plain(f"{named}round {rung.round}")
            rows += [row] * (row not in rows)
            outcomes.setdefault(rung.said, []).append((row, rung))
    if not said:
        return []
    pauses: list[Number] = [rung.pause_seconds for found in outcomes.values() for _, rung in found]
    yaxis: dict[str, Any] = {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": rows[::-1],
        "range": [-0.8, len(rows) - 0.2],
    }
    layout = {
        "xaxis": axes.of_times(pauses, below=True),
        "yaxis": yaxis,
        "showlegend": True,
        "hovermode": "closest",
    }
    return [
        Chart(
            "idle",
            "idle",
            "Kept and dropped",
            f"Each point is a connection that was idle for the pause, then probed: "
            f"{'; '.join(said)}.",
            [_points(name, found, at) for at, (name, found) in enumerate(outcomes.items())],
            layout,
        )
    ]


def _points(name: str, found: Sequence[tuple[str, IdleRung]], number: int) -> Trace:
    kept = name == "kept"
    colour = "run-0" if kept else _DROPPED[number % len(_DROPPED)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [rung.pause_seconds for _, rung in found],
        "y": [row for row, _ in found],
        "marker": {"symbol": "circle" if kept else SYMBOLS[4 + number % 2], "size": 9},
        "customdata": [_described(rung) for _, rung in found],
        "hovertemplate": "%{customdata}<extra></extra>",
        "meta": {"colour": colour},
    }


def _described(rung: IdleRung) -> str:
    closed = f" after {written_time(rung.closed_seconds)}" if rung.closed_seconds else ""
    return f"{written_time(rung.pause_seconds)}: {rung.said}{closed}"
