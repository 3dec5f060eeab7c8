"""The terminal: a live screen on standard error, tables and the verdict on standard output."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TextIO

import click
from rich.box import HORIZONTALS
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from echo_client.payload import WRONG
from echo_core.endpoint import Endpoint
from echo_core.units import format_bytes, format_duration
from echo_load.controller import Observer, Progress, shortcomings
from echo_load.errors import StandardOutputError
from echo_load.plan import Plan
from echo_load.reconcile import Reconciliation
from echo_load.result import Generator, Latency, Result, StageResult

_PLAIN_WIDTH = 100
_TABLE_WIDTH = 96
# The rate on the live screen is that of the last second.
_RATE_SECONDS = 1.0


class ConsoleReport(Observer):
    """Shows a test while it runs and afterwards.

    On a terminal a live screen is drawn on standard error; elsewhere a line a part is all.

    Args:
        quiet: print nothing on standard output; something else will.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)
        self._live: Live | None = None
        self._part = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._failure: OSError | None = None

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """Print what is tested, and how."""
        self._err.print(
            f"{', '.join(map(str, targets))}: {_described(plan)}; {plan.driven_by} in "
            f"{_processes(processes)}",
            style="dim",
        )

    def progressed(self, progress: Progress) -> None:
        """Draw how far the test is."""
        if progress.part != self._part:
            self._part = progress.part
            self._recent.clear()
            if not self._err.is_terminal:
                self._err.print(f"stage {progress.part} of {progress.parts}")
        if not self._err.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._err, transient=True, refresh_per_second=10)
            self._live.start()
        self._live.update(self._screen(progress))

    def measured(self, stages: Sequence[StageResult]) -> None:
        """Print the figures of stages that have ended."""
        self.close()
        if self._quiet:
            return
        for stage in stages:
            self._print(_stage_table(stage), Text())

    def ended(self, result: Result) -> None:
        """Print what concerns all stages: reconciliation, the generator, the verdict."""
        self.close()
        if self._quiet:
            return
        self._print(_whole_table(result), Text(), _verdict(result))

    def print_json(self, result: Result) -> None:
        """Print the result as JSON."""
        self._guarded(lambda: click.echo(result.to_json(), nl=False))

    def raise_failure(self) -> None:
        """Say now what went wrong with standard output: a test goes on without it.

        Raises:
            BrokenPipeError: its reader has left.
            StandardOutputError: it cannot be written to.
        """
        if isinstance(self._failure, BrokenPipeError):
            raise self._failure
        if self._failure is not None:
            raise StandardOutputError(f"cannot write the output: {self._failure.strerror}")

    def _print(self, *parts: RenderableType) -> None:
        self._guarded(lambda: self._out.print(*parts, sep="\n"))

    def _guarded(self, write: Callable[[], None]) -> None:
        if self._failure is not None:
            return
        try:
            write()
            sys.stdout.flush()
        except OSError as error:
            self._failure = error
            # What is still in its buffer would fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def close(self) -> None:
        """Take the live screen away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _screen(self, progress: Progress) -> Group:
        tally = progress.tally
        counts = tally.counts
        number = max(0, tally.timeline.stage_at(progress.elapsed))
        stage = progress.part + number
        stages = max(progress.parts, len(tally.stages))
        heading = Text.assemble(
            (f"stage {stage} of {stages}  ", "dim"),
            (tally.plan.stage_name(tally.stages[number]), "bold"),
            f"  {progress.phase}",
        )
        bar = Table.grid(padding=(0, 2))
        completed, total, left = _completed(progress)
        bar.add_row(ProgressBar(total=total, completed=completed, width=50), left)
        response = tally.measured.response
        p50, p99 = response.percentiles_us([50, 99])
        figures = Table.grid(padding=(0, 2))
        for _ in range(6):
            figures.add_column(no_wrap=True)
        figures.add_row(
            _figure("opened", f"{counts.opened:,}"),
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


def _described(plan: Plan) -> str:
    """What a plan does, in a line."""
    stages = plan.run_stages
    names = ", then ".join(plan.stage_name(stage) for stage in stages)
    durations = {format_duration(stage.duration) for stage in stages if stage.duration is not None}
    each = " each" if len(stages) > 1 else ""
    parts = [f"{names}, {' / '.join(sorted(durations))}{each}" if durations else names]
    if plan.open_loop:
        parts.append(f"{plan.arrivals} arrivals")
    if plan.messages is not None:
        parts.append(f"{plan.messages:,} messages")
    return "; ".join(parts)


def _completed(progress: Progress) -> tuple[float, float | None, str]:
    """How much of what is under way is done, of how much, and in words."""
    tally = progress.tally
    counts, plan, timeline = tally.counts, tally.plan, tally.timeline
    if progress.phase == "connecting":
        settled = counts.opened + counts.failed
        if plan.open_loop or not plan.stages:
            total = plan.connections
        else:
            total = int(tally.stages[0].first)
        return settled, total, f"{settled:,} of {total:,} connected"
    if timeline.seconds != math.inf:
        left = max(0.0, timeline.seconds - progress.elapsed)
        return timeline.seconds - left, timeline.seconds, f"{left:.1f} s left"
    if plan.messages is not None:
        return counts.messages, plan.messages, f"{plan.messages - counts.messages:,} messages left"
    return 0, None, f"{progress.elapsed:.1f} s; Ctrl-C ends it"


def _table(title: Text | None = None) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        show_header=False,
        box=HORIZONTALS,
        width=_TABLE_WIDTH,
    )
    table.add_column(style="dim", width=13)
    table.add_column(ratio=1)
    return table


def _stage_table(stage: StageResult) -> Table:
    passed = not shortcomings(stage)
    table = _table(
        Text.assemble(
            (stage.name, "bold"),
            f"  {stage.seconds:.1f} s  ",
            ("no failures", "green") if passed else ("FAILED", "bold red"),
        )
    )
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
    wrong = [(str(kind), errors.pop(kind), "red") for kind in WRONG if kind in errors]
    table.add_row(
        "errors",
        _counts(
            *(wrong or [("wrong replies", 0, "")]),
            ("timeouts", errors.pop("timeout", 0), "red"),
            *((kind, count, "red") for kind, count in sorted(errors.items())),
        ),
    )
    latencies = stage.latency_us
    if latencies.response == latencies.service:
        table.add_row("latency µs", _percentiles(latencies.response))
    else:
        table.add_row("response µs", _percentiles(latencies.response))
        table.add_row("service µs", _percentiles(latencies.service))
    for name, latency in (
        ("connect µs", latencies.connect),
        ("TLS µs", latencies.handshake),
        ("first byte µs", latencies.first_byte),
    ):
        if latency.count:
            table.add_row(name, _percentiles(latency))
    through = (
        f"{_megabytes(stage.bytes_sent, stage.seconds)} MB/s out, "
        f"{_megabytes(stage.bytes_received, stage.seconds)} MB/s back"
    )
    if latencies.kernel.count:
        through += (
            f", {stage.retransmits:,} retransmits, kernel's RTT {latencies.kernel.mean:,.0f} µs"
        )
    table.add_row("throughput", through)
    return table


def _whole_table(result: Result) -> Table:
    """What concerns the whole test."""
    table = _table()
    spread = result.spread
    table.add_row(
        "spread",
        f"{spread.least:,} to {spread.most:,} messages a connection, median {spread.median:,.0f}"
        + (f", {spread.starved:,} without any" if spread.starved else ""),
    )
    if result.reconciliation is not None:
        table.add_row("reconciled", _reconciled(result.reconciliation))
    table.add_row("generator", _generator(result.generator))
    return table


def _reconciled(found: Reconciliation) -> Text:
    if found.balanced:
        return Text.assemble(
            f"{found.sent:,} {found.unit} sent = received by the server = sent by it = "
            "received back"
        )
    return Text(
        f"{found.sent:,} {found.unit} sent, {found.received_by_server:,} received by the server, "
        f"{found.sent_by_server:,} sent by it, {found.received:,} received back",
        style="bold red",
    )


def _generator(generator: Generator) -> Text:
    text = Text(f"{_processes(generator.processes)}, {generator.cpu_cores:.2f} cores busy")
    if generator.lateness_us.count:
        text.append(f", messages late by p50 {generator.lateness_us.p50:,.0f} ")
        text.append(f"p99 {generator.lateness_us.p99:,.0f} µs")
    if generator.bound:
        text.append("\ngenerator-bound", style="bold yellow")
        text.append(": " + "; ".join(generator.findings))
    return text


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
    if not result.passed:
        return Text.assemble(
            ("INTERRUPTED  " if result.interrupted else "FAILED  ", "bold red"),
            "\n        ".join(result.reasons),
        )
    totals = result.totals
    return Text.assemble(
        ("PASSED  ", "bold green"),
        f"{totals.connections_opened:,} connections, none lost; all {totals.messages:,} "
        f"replies were byte for byte what was sent ({format_bytes(totals.bytes_received)})",
    )
