"""The rows of several targets on the live screen."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

from rich.cells import cell_len, get_character_cell_size
from rich.console import Group
from rich.table import Table
from rich.text import Text

from echo_core.units import format_count
from echo_load.plan.thresholds import written_rate
from echo_load.report.live_figures import LiveFigures, time_or_dash
from echo_load.runner.tally import Tally

# More rows could not be read while they change.
_MOST_ROWS = 8
# Lines of a terminal that the rest of the live screen needs.
_OTHER_LINES = 12
# Columns that are wide enough for all figures do not change their width.
_COLUMNS = {"open": 6, "msg/s": 9, "p50": 7, "p99": 7, "errors": 6}
# Columns with the spaces that separate them from the target.
_FIGURES_WIDTH = sum(_COLUMNS.values()) + 2 * len(_COLUMNS)
_LEAST_NAME_WIDTH = 12


class _Target(NamedTuple):
    """A target and its figures."""

    name: str
    figures: LiveFigures


class LiveTargets:
    """The figures of each of several targets.

    If there are too many for the screen, those with the most errors are shown, then those that do
    not answer, then the slowest, in this order; a line is about the others together.

    Args:
        tally: tally of the test.
    """

    def __init__(self, tally: Tally) -> None:
        self._targets = [
            _Target(str(endpoint), LiveFigures(of_target))
            for endpoint, of_target in zip(tally.plan.endpoints, tally.by_target, strict=False)
        ]
        self._worst_first = self._targets

    def update(self, elapsed: float) -> None:
        """Update the figures.

        Args:
            elapsed: seconds since the first message was due.
        """
        # Rows that change places more often than once a second could not be read.
        is_due = False
        for _, figures in self._targets:
            is_due |= bool(figures.update(elapsed)) or not figures.seconds
        if is_due:
            self._worst_first = sorted(self._targets, key=_badness, reverse=True)

    def rows(self, width: int, height: int) -> Group | None:
        """Return a row per target for a terminal of this size; None unless there are several."""
        if not self._targets:
            return None
        most = max(1, min(_MOST_ROWS, height - _OTHER_LINES))
        if len(self._targets) <= most:
            return Group(self._table(self._targets, width))
        shown, others = self._worst_first[:most], self._worst_first[most:]
        return Group(self._table(shown, width), _together(others))

    def _table(self, shown: list[_Target], width: int) -> Table:
        longest = max(cell_len(target.name) for target in self._targets)
        name_width = min(longest, max(_LEAST_NAME_WIDTH, width - _FIGURES_WIDTH))
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("target", width=name_width, no_wrap=True)
        for column, column_width in _COLUMNS.items():
            table.add_column(column, min_width=column_width, justify="right", no_wrap=True)
        for name, figures in shown:
            counts, speed, errors = figures.tally.counts, figures.speed, figures.errors
            table.add_row(
                _shortened(name, name_width),
                Text(f"{counts.open:,}", "bold red" if errors and not counts.open else ""),
                written_rate(speed.messages),
                time_or_dash(speed.p50),
                time_or_dash(speed.p99),
                Text(f"{errors:,}", "bold red" if errors else "green"),
            )
        return table


def _badness(target: _Target) -> tuple[int, float]:
    """Return a key that is larger for a target that needs attention more than another."""
    figures = target.figures
    return figures.errors, math.inf if figures.waits else figures.speed.p99 or 0.0


def _together(targets: list[_Target]) -> Text:
    """Return the figures of the targets that are not shown, in one line."""
    rate = sum(target.figures.speed.messages for target in targets)
    errors = sum(target.figures.errors for target in targets)
    times = [one.figures.speed.p99 for one in targets if one.figures.speed.p99 is not None]
    slowest = f", p99 at most {time_or_dash(max(times))}" if times else ""
    return Text.assemble(
        (f"and {len(targets):,} more: {written_rate(rate)} msg/s{slowest}, ", "dim"),
        (format_count(errors, "error"), "red" if errors else "dim"),
    )


def _shortened(name: str, width: int) -> str:
    """Return a name without its middle if it is wider than this: its port is at the end."""
    if cell_len(name) <= width:
        return name
    end = width // 2
    return f"{_beginning(name, width - end - 1)}…{_beginning(name[::-1], end)[::-1]}"


def _beginning(name: str, width: int) -> str:
    """Return as many of the first characters of a name as fit in this width."""
    widths = accumulate(map(get_character_cell_size, name))
    return name[: sum(one <= width for one in widths)]
