"""Comparisons of results as tables."""

from __future__ import annotations

from rich.box import HORIZONTALS
from rich.table import Table
from rich.text import Text

from echo_load.compare import CONFIDENCE, Change, Comparison
from echo_load.thresholds import written_rate, written_time

_STYLES = {
    "better": "bold green",
    "worse": "bold red",
    "no difference": "",
    "too noisy": "yellow",
}
_SIGNS = {"better": "+", "worse": "-", "no difference": "=", "too noisy": "?"}


def comparison_table(comparison: Comparison) -> Table:
    """The figures of two results side by side, with what changed."""
    table = Table(box=HORIZONTALS, pad_edge=False)
    table.add_column("figure", style="dim")
    baseline, other = comparison.repeats
    table.add_column(f"{comparison.baseline} ({baseline}x)", justify="right")
    table.add_column(f"{comparison.other} ({other}x)", justify="right")
    table.add_column("change", justify="right")
    table.add_column(f"{CONFIDENCE:.0%} interval", justify="right")
    table.add_column("verdict")
    several = len({change.stage for change in comparison.changes}) > 1
    stage = ""
    for change in comparison.changes:
        if several and change.stage != stage:
            stage = change.stage
            table.add_row(Text(stage, style="bold"))
        table.add_row(
            change.figure,
            _amount(change, change.baseline),
            _amount(change, change.other),
            f"{_points(change, change.change)} {_unit(change)}",
            _interval(change),
            _verdict(change),
        )
    return table


def conclusion(comparison: Comparison) -> Text:
    """The verdict in a line, and what to know before believing it."""
    verdict = comparison.verdict
    counted = [
        f"{sum(change.verdict == one for change in comparison.changes)} {one}"
        for one in _STYLES
        if any(change.verdict == one for change in comparison.changes)
    ]
    text = Text.assemble(
        (verdict.upper(), _STYLES[verdict]),
        f"  {comparison.other} against {comparison.baseline}: {', '.join(counted)}",
    )
    for note in comparison.notes:
        text.append(f"\n  note: {note}", "yellow")
    return text


def _amount(change: Change, value: float) -> str:
    if change.unit == "us":
        return written_time(value / 1e6)
    return f"{value * 100:.3g} %" if change.unit == "share" else f"{written_rate(value)}/s"


def _points(change: Change, value: float) -> str:
    # A share of messages differs by percentage points.
    return f"{value * 100:+.2f}" if change.unit == "share" else f"{value * 100:+.1f}"


def _unit(change: Change) -> str:
    return "pp" if change.unit == "share" else "%"


def _interval(change: Change) -> str:
    if change.low is None or change.high is None:
        return "-"
    return f"{_points(change, change.low)} to {_points(change, change.high)} {_unit(change)}"


def _verdict(change: Change) -> Text:
    text = Text(f"{_SIGNS[change.verdict]} {change.verdict}", style=_STYLES[change.verdict])
    if change.repeats_to_tell is not None:
        text.append(f"; try {change.repeats_to_tell:,}x")
    return text
