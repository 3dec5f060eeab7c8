"""The timeline of the outages of a watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from echo_load.plan.thresholds import written_time
from echo_load.report.page import axes
from echo_load.report.page.traces import COLOURS, Chart, Run, Trace, plain
from echo_load.results.watch import Outage, Pause


def outages(runs: Sequence[Run]) -> Chart:
    """Return the timeline of outages: a row for each target, a bar for each outage."""
    rows: list[str] = []
    kinds: dict[str, list[tuple[str, Outage]]] = {}
    paused: list[tuple[str, Pause]] = []
    seconds = 0.0
    for run in runs:
        found = run.result.watch
        assert found is not None
        seconds = max(seconds, found.seconds)
        named = f"{run.name}: " if len(runs) > 1 else ""
        rows += [plain(f"{named}{one.target}") for one in found.targets]
        paused += [
            (plain(f"{named}{one.target}"), pause)
            for one in found.targets
            for pause in found.pauses
        ]
        for outage in found.outages:
            kinds.setdefault(outage.kind, []).append((plain(f"{named}{outage.target}"), outage))
    data = [_outages(kind, found, number) for number, (kind, found) in enumerate(kinds.items())]
    if paused:
        data.append(_pauses(paused, len(data)))
    xaxis = axes.of_seconds(int(seconds)) | {"range": [0, seconds]}
    del xaxis["unifiedhovertitle"]
    yaxis: dict[str, Any] = {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": rows[::-1],
        "range": [-0.8, len(rows) - 0.2],
    }
    layout = {
        "xaxis": xaxis,
        "yaxis": yaxis,
        "showlegend": True,
        "barmode": "overlay",
        "hovermode": "closest",
    }
    count = sum(map(len, kinds.values()))
    caption = (
        "From the first probe that failed to the first checked reply after the last one."
        if count
        else "None: every probe was answered."
    )
    if paused:
        caption += " Nothing is known of the time in which the watch itself paused."
    return Chart("outages", "time", "Outages", caption, data, layout)


def _outages(kind: str, found: Sequence[tuple[str, Outage]], number: int) -> Trace:
    return _bars(kind, found, number, [_described(outage) for _, outage in found])


def _pauses(found: Sequence[tuple[str, Pause]], number: int) -> Trace:
    described = [
        f"the watch itself paused {written_time(pause.seconds)}, from {pause.begin:.3f} s"
        for _, pause in found
    ]
    return _bars("not watched", found, number, described)


def _bars(
    name: str, found: Sequence[tuple[str, Outage | Pause]], number: int, described: list[str]
) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "base": [one.begin for _, one in found],
        "x": [one.seconds for _, one in found],
        "y": [row for row, _ in found],
        "width": 0.5,
        "customdata": described,
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {
            "pattern": {"shape": ("", "/", "x", ".", "-", "|")[number % 6], "solidity": 0.35}
        },
        "meta": {"colour": f"error-{number % COLOURS}"},
    }


def _described(outage: Outage) -> str:
    return (
        f"{outage.kind} for {written_time(outage.seconds)}, from {outage.begin:.3f} s"
        f"{', to the end' if outage.ongoing else f' to {outage.end:.3f} s'}"
    )
