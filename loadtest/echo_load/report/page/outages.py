"""The timeline of the outages of a watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from echo_load.plan.thresholds import written_time
from echo_load.report.page import axes
from echo_load.report.page.over_time import began
from echo_load.report.page.traces import COLOURS, Chart, Run, Trace, plain
from echo_load.results.watch import Outage, Pause, WatchResult

# Of more outages, the longest ones are shown: a page with all of them would become too large.
MOST_BARS = 1000
MOST_ROWS = 200


def outages(runs: Sequence[Run]) -> Chart:
    """Return the timeline of outages: a row for each target, a bar for each outage."""
    rows: list[str] = []
    kinds: dict[str, list[tuple[str, Outage]]] = {}
    paused: list[tuple[str, Pause]] = []
    seconds = 0.0
    watches = [run.result.watch for run in runs if run.result.watch is not None]
    for run, found in zip(runs, watches, strict=True):
        seconds = max(seconds, found.seconds)
        named = f"{run.name}: " if len(runs) > 1 else ""
        rows += [plain(f"{named}{one.target}") for one in found.targets]
        paused += [
            (plain(f"{named}{one.target}"), pause)
            for one in found.targets
            for pause in found.pauses
        ]
        for outage in longest(found, MOST_BARS // len(runs)):
            kinds.setdefault(outage.kind, []).append((plain(f"{named}{outage.target}"), outage))
    data = [_outages(kind, found, number) for number, (kind, found) in enumerate(kinds.items())]
    if paused:
        data.append(_pauses(paused, len(data)))
    xaxis = axes.of_seconds(int(seconds), began(runs)) | {"range": [0, seconds]}
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
    if count < (all_outages := sum(len(found.outages) for found in watches)):
        caption += f" The {count:,} longest of {all_outages:,} outages are shown."
    if paused:
        caption += " Nothing is known of the time in which the watch itself paused."
    return Chart("outages", "time", "Outages", caption, data, layout)


def longest(found: WatchResult, most: int) -> list[Outage]:
    """Return the longest outages of a watch, in their order."""
    kept = sorted(found.outages, key=lambda one: one.seconds)[-most:]
    begins = {(one.target, one.number) for one in kept}
    return [one for one in found.outages if (one.target, one.number) in begins]


def left_out(runs: Sequence[Run]) -> str:
    """Return a note on a table that does not have all outages; an empty text if it has."""
    most = max(len(run.result.watch.outages) for run in runs if run.result.watch is not None)
    return f"The {MOST_ROWS:,} longest of each run; all are in its JSON." * (most > MOST_ROWS)


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
        f"{', to the end' if outage.ongoing else f' to {outage.end:.3f} s'}; "
        f"began at {outage.started_at}"
    )
