"""The report of a search for a capacity on the terminal."""

from __future__ import annotations

import sys
from itertools import groupby

from rich.box import HORIZONTALS
from rich.table import Table
from rich.text import Text

from echo_load.plan.thresholds import written_rate, written_time
from echo_load.report.live import LiveScreen
from echo_load.report.output import Output
from echo_load.report.progress_lines import ProgressLines
from echo_load.results.capacity import CapacityResult, CapacityStep, written_level
from echo_load.runner.observer import Observer, Progress


class CapacityReport(Observer):
    """The steps of a search on standard error: a line per step, and the progress of each.

    The progress is a live screen on a terminal, otherwise a line every few seconds.
    """

    def __init__(self) -> None:
        self._err = Output(sys.stderr)
        self._live = LiveScreen(self._err.console)
        self._lines = ProgressLines(self._err, with_stage=True)

    def progressed(self, progress: Progress) -> None:
        """Show the progress of a step."""
        if self._err.can_be_redrawn:
            self._err.guarded(lambda: self._live.draw(progress))
        else:
            self._lines.progressed(progress)

    def tried(self, capacity: CapacityResult, step: CapacityStep) -> None:
        """Print the outcome of a step."""
        self.close()
        level = capacity.written(capacity.level_of(step))
        said = f"{step.phase:<7}  {level:>14}  p99 {_time(step.p99_us)}  "
        self._lines.print(Text(said) + _outcome(step))

    def close(self) -> None:
        """Remove the live screen."""
        self._err.guarded(self._live.close)


def capacity_table(capacity: CapacityResult) -> Table:
    """Return the table of the steps, from the lowest level to the highest.

    Steps at the same level share a row: that of one that was kept, or else the one in the middle.
    """
    table = Table(box=HORIZONTALS, expand=True)
    table.add_column("msg/s" if capacity.asked == "rate" else "connections", justify="right")
    for name in ("achieved", "p50", "p99", "p99.9"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("SLO", ratio=1)
    in_order = sorted(capacity.steps, key=lambda step: (capacity.level_of(step), step.phase))
    for _, same in groupby(in_order, lambda step: (capacity.level_of(step), step.phase)):
        step, outcome = _together(list(same))
        times = (step.p50_us, step.p99_us, step.p99_9_us)
        level, achieved = written_level(capacity.level_of(step)), written_rate(step.achieved)
        table.add_row(level, achieved, *map(_time, times), outcome)
    return table


def _together(steps: list[CapacityStep]) -> tuple[CapacityStep, Text]:
    """Return the step that is shown for several ones, and the outcome of all."""
    kept = [step for step in steps if step.kept]
    by_time = sorted(steps, key=lambda step: step.p99_us)
    shown = kept[-1] if kept else by_time[(len(by_time) - 1) // 2]
    outcome = _outcome(shown)
    if len(steps) > 1:
        outcome.append(f", {len(kept)} of {len(steps)} times" if kept else f", {len(steps)} times")
    return shown, outcome


def _outcome(step: CapacityStep) -> Text:
    if step.kept:
        return Text("confirmed" if step.phase == "confirm" else "kept", "green")
    bound = " (generator-bound)" if step.generator_bound else ""
    return Text(f"{step.why}{bound}", "red")


def _time(microseconds: float) -> str:
    return written_time(microseconds / 1e6) if microseconds else "none"
