"""The live screen: the progress of a running test."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from echo_core.units import format_bandwidth
from echo_load.plan.thresholds import written_time
from echo_load.runner.observer import Progress
from echo_load.runner.tally import Tally

_REFRESHES_PER_SECOND = 10
# Time over which rates are averaged, and number of seconds in the sparklines.
_RATE_SECONDS = 1.0
_SPARK_SECONDS = 60
# Generators send updates four times per second: a second is complete this long after its end.
LATE_SECONDS = 0.5
_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR_WIDTH = 50


class _Moment(NamedTuple):
    """The counts of a test at an instant.

    Attributes:
        elapsed: the instant in seconds since the first message was due.
        messages: number of completed round trips.
        bytes_received: payload bytes received back.
    """

    elapsed: float
    messages: int
    bytes_received: int


class LiveScreen:
    """A screen on a terminal with the progress of a test, updated in place.

    Args:
        console: console on the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._tally: Tally | None = None
        self._recent: deque[_Moment] = deque()
        self._second = 0
        self._rates: deque[float] = deque(maxlen=_SPARK_SECONDS)
        self._p99s: deque[float] = deque(maxlen=_SPARK_SECONDS)
        self._p50 = self._p99 = 0.0

    def draw(self, progress: Progress) -> None:
        """Draw the current progress."""
        if progress.tally is not self._tally:
            self._tally = progress.tally
            self._recent.clear()
            self._second = 0
        self._update(progress)
        if self._live is None:
            self._live = Live(
                console=self._console, transient=True, refresh_per_second=_REFRESHES_PER_SECOND
            )
            self._live.start()
        self._live.update(self._screen(progress))

    def close(self) -> None:
        """Remove the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _update(self, progress: Progress) -> None:
        """Update the figures from complete seconds."""
        tally = progress.tally
        while progress.elapsed >= self._second + 1 + LATE_SECONDS:
            times = tally.times_of(self._second)
            p50, p99 = times.percentiles_us([50, 99])
            self._p50, self._p99 = p50 / 1e6, p99 / 1e6
            self._rates.append(times.count)
            self._p99s.append(self._p99)
            self._second += 1
        if not self._second:
            p50, p99 = tally.measured.response.percentiles_us([50, 99])
            self._p50, self._p99 = p50 / 1e6, p99 / 1e6

    def _screen(self, progress: Progress) -> Group:
        tally = progress.tally
        bar = Table.grid(padding=(0, 2))
        completed, total, left = _completed(progress)
        bar.add_row(ProgressBar(total=total, completed=completed, width=_BAR_WIDTH), left)
        lines: list[RenderableType] = [_heading(progress), bar, self._figures(progress)]
        if len(self._rates) > 1:
            lines.append(_sparkline("msg/s", self._rates, f"{self._rates[-1]:,.0f}"))
            lines.append(_sparkline("p99", self._p99s, written_time(self._p99s[-1])))
        if kinds := sorted(tally.counts.errors.items()):
            lines.append(Text("  ".join(f"{kind} {count:,}" for kind, count in kinds), "red"))
        return Group(*lines)

    def _figures(self, progress: Progress) -> Text:
        counts = progress.tally.counts
        rate, throughput = self._rate(
            _Moment(progress.elapsed, counts.messages, counts.bytes_received)
        )
        errors = counts.errors.total()
        figures = (
            ("connections", f"{counts.open:,}", ""),
            ("msg/s", f"{rate:,.0f}", ""),
            ("back", format_bandwidth(throughput), ""),
            ("p50", written_time(self._p50), ""),
            ("p99", written_time(self._p99), ""),
            ("errors", f"{errors:,}", "red" if errors else "green"),
        )
        # No-break spaces, so that lines do not break within a figure.
        return Text("   ").join(
            Text.assemble((f"{name}\u00a0", "dim"), (value.replace(" ", "\u00a0"), f"bold {style}"))
            for name, value, style in figures
        )

    def _rate(self, now: _Moment) -> tuple[float, float]:
        """Return messages and bytes per second, over the last second."""
        recent = self._recent
        recent.append(now)
        while len(recent) > 2 and now.elapsed - recent[1].elapsed >= _RATE_SECONDS:
            recent.popleft()
        before = recent[0]
        seconds = now.elapsed - before.elapsed
        if seconds <= 0:
            return 0.0, 0.0
        return (
            (now.messages - before.messages) / seconds,
            (now.bytes_received - before.bytes_received) / seconds,
        )


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


def _sparkline(name: str, values: Sequence[float], last: str) -> Text:
    """Return the values as blocks, relative to the highest value, and the last value as text."""
    most = max(values) or 1.0
    blocks = "".join(_BLOCKS[round(value / most * (len(_BLOCKS) - 1))] for value in values)
    return Text.assemble((f"{name:<6}", "dim"), (blocks, "cyan"), f" {last}")
