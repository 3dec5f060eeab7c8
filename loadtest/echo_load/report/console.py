"""The terminal: a live screen on standard error, tables and the verdict on standard output."""

from __future__ import annotations

import sys
from collections import deque
from typing import TextIO

from rich.box import HORIZONTALS
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from echo_core.units import format_bytes, format_duration
from echo_load.controller import Progress, shortcomings
from echo_load.plan import Plan
from echo_load.result import Latency, Result, StageResult

_PLAIN_WIDTH = 100
# The rate on the live screen is that of the last second.
_RATE_SECONDS = 1.0


class ConsoleReport:
    """Shows a test while it runs and afterwards.

    On a terminal a live screen is drawn on standard error; elsewhere a line a stage is all.

    Args:
        plan: the test.
        target: what is tested.
        quiet: print nothing on standard output; something else will.
    """

    def __init__(self, plan: Plan, target: str, *, quiet: bool) -> None:
        self._plan = plan
        self._quiet = quiet
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)
        self._live: Live | None = None
        self._stage = 0
        self._recent: deque[tuple[float, int]] = deque()
        stages = ", then ".join(stage.name for stage in plan.stages)
        durations = {format_duration(stage.duration) for stage in plan.stages}
        self._err.print(
            f"{target}: {stages}, {' / '.join(sorted(durations))} each; {plan.engine} in "
            f"{_processes(plan.processes)}",
            style="dim",
        )

    def progress(self, progress: Progress) -> None:
        """Draw how far the test is."""
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._recent.clear()
            if not self._err.is_terminal:
                self._err.print(f"stage {progress.stage} of {progress.stages}")
        if not self._err.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._err, transient=True, refresh_per_second=10)
            self._live.start()
        self._live.update(self._screen(progress))

    def stage(self, stage: StageResult) -> None:
        """Print the figures of a stage that has ended."""
        self.close()
        if not self._quiet:
            self._out.print(_stage_table(stage))
            self._out.print()

    def verdict(self, result: Result) -> None:
        """Print whether the test passed, and why or why not."""
        self.close()
        if not self._quiet:
            self._out.print(_verdict(result))

    def close(self) -> None:
        """Take the live screen away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _screen(self, progress: Progress) -> Group:
        tally = progress.tally
        duration = tally.plan.duration
        counts = tally.counts
        settled = counts.opened + counts.failed
        heading = Text.assemble(
            (f"stage {progress.stage} of {progress.stages}  ", "dim"),
            (tally.plan.name, "bold"),
            f"  {progress.phase}",
        )
        if progress.phase == "connecting":
            completed, total = float(settled), float(tally.plan.connections)
            left = f"{settled:,} of {tally.plan.connections:,} connected"
        else:
            completed, total = min(progress.elapsed, duration), duration
            left = f"{max(0.0, duration - progress.elapsed):.1f} s left"
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=total, completed=completed, width=50), left)
        p50, p99 = tally.response.percentiles_us([50, 99])
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            _figure("up", f"{counts.opened - counts.lost:,}"),
            _figure("messages", f"{counts.messages:,}"),
            _figure("msg/s", f"{self._rate(progress.elapsed, counts.messages):,.0f}"),
            _figure("p50", f"{p50:,.0f} µs"),
            _figure("p99", f"{p99:,.0f} µs"),
            _figure("errors", f"{counts.errors.total():,}", "red" if counts.errors else "green"),
        )
        kinds = "  ".join(f"{kind} {count:,}" for kind, count in sorted(counts.errors.items()))
        return Group(heading, bar, figures, *([Text(kinds, style="red")] if kinds else []))

    def _rate(self, elapsed: float, messages: int) -> float:
        self._recent.append((elapsed, messages))
        while len(self._recent) > 2 and elapsed - self._recent[1][0] >= _RATE_SECONDS:
            self._recent.popleft()
        since, before = self._recent[0]
        return (messages - before) / (elapsed - since) if elapsed > since else 0.0


def _console(stream: TextIO) -> Console:
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console = Console(file=stream, highlight=False, width=_PLAIN_WIDTH)
    return console


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _figure(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, f"bold {style}".strip()))


def _stage_table(stage: StageResult) -> Table:
    passed = not shortcomings(stage)
    title = Text.assemble(
        (stage.name, "bold"),
        f"  {stage.seconds:.1f} s  ",
        ("no failures", "green") if passed else ("FAILED", "bold red"),
    )
    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        show_header=False,
        box=HORIZONTALS,
        width=84,
    )
    table.add_column(style="dim", width=13)
    table.add_column()
    errors = dict(stage.errors)
    table.add_row(
        "connections",
        _counts(
            ("opened", stage.connections_opened, ""),
            ("failed", stage.connections_failed, "red"),
            ("lost", stage.connections_lost, "red"),
        ),
    )
    table.add_row("messages", f"{stage.messages:,}  ({stage.messages_per_second:,.0f} msg/s)")
    table.add_row(
        "errors",
        _counts(
            ("mismatches", errors.pop("mismatch", 0), "red"),
            ("timeouts", errors.pop("timeout", 0), "red"),
            *((kind, count, "red") for kind, count in sorted(errors.items())),
        ),
    )
    table.add_row("latency µs", _percentiles(stage.latency_us.response))
    table.add_row("connect µs", _percentiles(stage.latency_us.connect))
    table.add_row(
        "throughput",
        f"{_megabytes(stage.bytes_sent, stage.seconds)} MB/s out, "
        f"{_megabytes(stage.bytes_received, stage.seconds)} MB/s back, "
        f"{stage.retransmits:,} TCP retransmits",
    )
    generator = stage.generator
    table.add_row(
        "generator",
        f"{_processes(generator.processes)}, {generator.cpu_cores:.2f} cores busy",
    )
    return table


def _counts(*counts: tuple[str, int, str]) -> Text:
    parts = [
        Text.assemble((f"{count:,}", f"bold {style}" if count and style else ""), f" {name}")
        for name, count, style in counts
    ]
    return Text(", ").join(parts)


def _percentiles(latency: Latency) -> Text:
    if not latency.count:
        return Text("none")
    figures = [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p99_9),
        ("max", latency.max),
    ]
    return Text("  ").join(
        Text.assemble((f"{name} ", "dim"), f"{value:,.0f}") for name, value in figures
    )


def _megabytes(count: int, seconds: float) -> str:
    return f"{count / seconds / 1e6:,.2f}" if seconds else "0.00"


def _verdict(result: Result) -> Text:
    if result.passed:
        totals = result.totals
        return Text.assemble(
            ("PASSED  ", "bold green"),
            f"{totals.connections_opened:,} connections, none lost; all {totals.messages:,} "
            f"replies were byte for byte what was sent ({format_bytes(totals.bytes_received)})",
        )
    return Text.assemble(
        ("INTERRUPTED  " if result.interrupted else "FAILED  ", "bold red"),
        "\n        ".join(result.reasons),
    )
