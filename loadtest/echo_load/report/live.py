"""The live screen: the progress of a running test."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from echo_core.units import format_bandwidth
from echo_load.report.live_figures import LiveFigures, time_or_dash
from echo_load.report.live_targets import LiveTargets
from echo_load.runner.observer import Progress
from echo_load.runner.tally import Tally

_REFRESHES_PER_SECOND = 10
# Number of seconds in the sparklines.
_SPARK_SECONDS = 60
_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR_WIDTH = 50
_GAP = Text("   ")


class LiveScreen:
    """A screen on a terminal with the progress of a test, updated in place.

    Args:
        console: console on the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._part: tuple[LiveFigures, LiveTargets] | None = None
        self._rates: deque[float] = deque(maxlen=_SPARK_SECONDS)
        self._p99s: deque[float | None] = deque(maxlen=_SPARK_SECONDS)

    def draw(self, progress: Progress) -> None:
        """Draw the current progress."""
        if self._part is None or self._part[0].tally is not progress.tally:
            self._part = LiveFigures(progress.tally), LiveTargets(progress.tally)
        figures, targets = self._part
        for speed in figures.update(progress.elapsed):
            self._rates.append(speed.messages)
            self._p99s.append(speed.p99)
        targets.update(progress.elapsed)
        if self._live is None:
            self._live = Live(
                console=self._console, transient=True, refresh_per_second=_REFRESHES_PER_SECOND
            )
            self._live.start()
        self._live.update(self._screen(progress, figures, targets))

    def close(self) -> None:
        """Remove the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _screen(self, progress: Progress, figures: LiveFigures, targets: LiveTargets) -> Group:
        bar = Table.grid(padding=(0, 2))
        completed, total, left = _completed(progress)
        bar.add_row(ProgressBar(total=total, completed=completed, width=_BAR_WIDTH), left)
        lines: list[RenderableType] = [
            _heading(progress),
            bar,
            _summary(figures, self._console.width),
        ]
        if len(self._rates) > 1:
            lines.append(_sparkline("msg/s", self._rates, f"{self._rates[-1]:,.0f}"))
            lines.append(_sparkline("p99", self._p99s, time_or_dash(self._p99s[-1])))
        if rows := targets.rows(*self._console.size):
            lines += [Text(), rows]
        if kinds := sorted(progress.tally.counts.errors.items()):
            lines.append(Text("  ".join(f"{kind} {count:,}" for kind, count in kinds), "red"))
        return Group(*lines)


def _summary(now: LiveFigures, width: int) -> Text:
    """Return the figures in one line, or in two if that is wider than this."""
    speed, errors = now.speed, now.errors
    figures = [
        Text.assemble((f"{name} ", "dim"), (value, f"bold {style}"))
        for name, value, style in (
            ("connections", f"{now.tally.counts.open:,}", ""),
            ("msg/s", f"{speed.messages:,.0f}", ""),
            ("back", format_bandwidth(speed.bytes_received), ""),
            ("p50", time_or_dash(speed.p50), ""),
            ("p99", time_or_dash(speed.p99), ""),
            ("errors", f"{errors:,}", "red" if errors else "green"),
        )
    ]
    line = _GAP.join(figures)
    if line.cell_len <= width:
        return line
    return Text("\n").join((_GAP.join(figures[:3]), _GAP.join(figures[3:])))


def _heading(progress: Progress) -> Text:
    tally = progress.tally
    number = max(0, tally.timeline.stage_at(progress.elapsed))
    heading = Text()
    if progress.phase != "warming up":
        stages = len(tally.plan.run_stages)
        stage = (progress.part - 1) % stages + 1 if tally.plan.reopen else number + 1
        heading.append(f"stage {stage} of {stages}  ", "dim")
    heading.append(tally.plan.stage_name(tally.stages[number]), "bold")
    heading.append(f"  {progress.phase}")
    if tally.plan.repeat > 1:
        heading.append(f"  repeat {tally.repeat} of {tally.plan.repeat}", "dim")
    return heading


def _completed(progress: Progress) -> tuple[float, float | None, str]:
    """Return the completed and the total amount of the phase, and the remaining one in words."""
    tally = progress.tally
    counts, plan, timeline = tally.counts, tally.plan, tally.timeline
    if progress.phase == "connecting":
        settled = counts.opened + counts.failed
        total = connections_at_first(tally)
        return settled, total, f"{settled:,} of {total:,} connected"
    if timeline.seconds != math.inf:
        left = max(0.0, timeline.seconds - progress.elapsed)
        return timeline.seconds - left, timeline.seconds, f"{left:.1f} s left"
    if plan.messages is not None:
        return counts.messages, plan.messages, f"{plan.messages - counts.messages:,} messages left"
    return 0, None, f"{progress.elapsed:.1f} s; Ctrl-C stops it"


def connections_at_first(tally: Tally) -> int:
    """Return the number of connections that a part of a test opens at its beginning."""
    if tally.plan.open_loop or not tally.plan.stages:
        return tally.plan.connections
    return int(tally.stages[0].first)


def _sparkline(name: str, values: Sequence[float | None], last: str) -> Text:
    """Return the values as blocks, relative to the highest value, and the last value as text."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    blocks = "".join(
        " " if value is None else _BLOCKS[round(value / most * (len(_BLOCKS) - 1))]
        for value in values
    )
    return Text.assemble((f"{name:<6}", "dim"), (blocks, "cyan"), f" {last}")
