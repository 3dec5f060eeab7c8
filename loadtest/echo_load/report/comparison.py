"""Comparisons of results as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.box import HORIZONTALS
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from echo_core.units import format_bit_rate
from echo_load.plan.thresholds import written_rate, written_time
from echo_load.results.compare import CONFIDENCE
from echo_load.results.comparison import CAPACITY, Change, Comparison

# Wider than any table.
_UNLIMITED = 10_000
_STYLES = {
    "better": "bold green",
    "worse": "bold red",
    "no difference": "",
    "too noisy": "yellow",
    "too few repeats": "yellow",
}
_SIGNS = {
    "better": "+",
    "worse": "-",
    "no difference": "=",
    "too noisy": "?",
    "too few repeats": "?",
}


class WrittenChange(NamedTuple):
    """The change of a figure as texts.

    Attributes:
        baseline: the figure of the first result, with its unit.
        other: the figure of the second result.
        change: the change.
        interval: interval of the change; a hyphen if there is none.
        verdict: the verdict with a sign, and the number of repeats that would give another one.
    """

    baseline: str
    other: str
    change: str
    interval: str
    verdict: str


def written_change(change: Change) -> WrittenChange:
    """Return a change as texts."""
    return WrittenChange(
        _amount(change, change.baseline),
        _amount(change, change.other),
        f"{_points(change, change.change)} {_unit(change)}",
        _interval(change),
        _verdict(change, narrow=False).plain,
    )


def interval_name(comparison: Comparison) -> str:
    """Return the name of the intervals of a comparison; only some are of confidence."""
    capacities = all(change.figure == CAPACITY for change in comparison.changes)
    return "interval" if capacities else f"{CONFIDENCE:.0%} interval"


class ComparisonTable:
    """The figures of two results and their changes, side by side or, if narrow, stacked.

    Args:
        comparison: comparison of the two results.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table for a console (rich's protocol)."""
        wide = comparison_table(self._comparison, narrow=False)
        fits = console.measure(wide, options=options.update(max_width=_UNLIMITED)).maximum
        yield wide if fits <= options.max_width else comparison_table(self._comparison, narrow=True)


def comparison_table(comparison: Comparison, *, narrow: bool) -> Table:
    """Return the figures of two results and their changes, the pairs stacked if narrow."""
    table = Table(box=HORIZONTALS, pad_edge=False)
    names = [
        f"{name} ({repeats}x)"
        for name, repeats in zip(
            (comparison.baseline, comparison.other), comparison.repeats, strict=True
        )
    ]
    interval = interval_name(comparison)
    table.add_column("figure", style="dim")
    for head in _as_cells((names, ["change", interval]), narrow):
        table.add_column(head, justify="right", overflow="fold")
    table.add_column("verdict")
    several = len({change.stage for change in comparison.changes}) > 1
    stage = ""
    for change in comparison.changes:
        if several and change.stage != stage:
            stage = change.stage
            table.add_row(Text(stage, style="bold"))
        amount, other, changed, between, _ = written_change(change)
        cells = _as_cells(((amount, other), (changed, between)), narrow)
        table.add_row(change.figure, *cells, _verdict(change, narrow))
    return table


def _as_cells(pairs: Sequence[Sequence[str]], narrow: bool) -> list[str]:
    """Return the texts of pairs as adjacent cells, or each pair as one cell if narrow."""
    if narrow:
        return ["\n".join(pair) for pair in pairs]
    return [cell for pair in pairs for cell in pair]


def conclusion(comparison: Comparison) -> Text:
    """Return the verdict in one line, and its caveats."""
    verdict = comparison.verdict
    text = Text.assemble(
        (verdict.upper(), _STYLES[verdict]),
        f"  {comparison.other} against {comparison.baseline}: {counted(comparison)}",
    )
    for note in comparison.notes:
        text.append(f"\n  note: {note}", "yellow")
    return text


def counted(comparison: Comparison) -> str:
    """Return how many figures have which verdict: `4 worse, 2 no difference`."""
    verdicts = [change.verdict for change in comparison.changes]
    return ", ".join(f"{verdicts.count(one)} {one}" for one in _STYLES if one in verdicts)


def _amount(change: Change, value: float) -> str:
    if change.unit == "us":
        return written_time(value / 1e6)
    if change.unit == "share":
        return f"{value * 100:.3g} %"
    if change.unit == "bytes per second":
        # In a wide table both units do not fit.
        return format_bit_rate(value)
    return f"{written_rate(value)}{'/s' if change.unit == 'per second' else ''}"


def _points(change: Change, value: float) -> str:
    # The difference of two shares is in percentage points. `z` avoids a negative zero.
    return f"{value * 100:+z.2f}" if change.unit == "share" else f"{value * 100:+z.1f}"


def _unit(change: Change) -> str:
    return "pp" if change.unit == "share" else "%"


def _interval(change: Change) -> str:
    if change.low is None and change.high is None:
        return "-"
    if change.high is None:
        return f"from {_points(change, change.low or 0.0)} {_unit(change)}"
    if change.low is None:
        return f"up to {_points(change, change.high)} {_unit(change)}"
    return f"{_points(change, change.low)} to {_points(change, change.high)} {_unit(change)}"


def _verdict(change: Change, narrow: bool) -> Text:
    text = Text(f"{_SIGNS[change.verdict]} {change.verdict}", style=_STYLES[change.verdict])
    if change.repeats_to_tell is not None:
        text.append(f"{chr(10) if narrow else '; '}try {change.repeats_to_tell:,}x")
    return text
