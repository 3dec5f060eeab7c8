"""The report on the terminal: a live screen on standard error, tables on standard output."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from rich.text import Text

from echo_core.endpoint import Endpoint
from echo_core.units import format_count
from echo_load.plan.plan import Plan
from echo_load.report.capacity import capacity_table
from echo_load.report.evidence import evidence_parts
from echo_load.report.idle import IdleScreen, idle_summary, idle_table
from echo_load.report.live import LiveScreen
from echo_load.report.output import Output
from echo_load.report.tables import (
    repeat_lines,
    stage_table,
    summary,
    target_table,
    whole_table,
)
from echo_load.report.watching import WatchScreen, live_display, outage_table, watch_summary
from echo_load.results.result import Result, StageResult
from echo_load.runner.observer import Observer, Progress
from echo_load.runner.tally import Tally

_OWN_SERVER = "no target was given, so this is an echo-server of its own; HOST:PORT tests yours"


class ConsoleReport(Observer):
    """The report of a test on the terminal, during and after the test.

    On a terminal a live screen is drawn on standard error; otherwise a line is printed there when a
    stage begins, and one when it has ended.

    Args:
        output: stream for the tables.
        quiet: whether to print no tables, because the result is printed as JSON or elsewhere.
    """

    def __init__(self, output: Output, *, quiet: bool = False) -> None:
        self._output = output
        self._quiet = quiet
        self._err = Output(sys.stderr)
        self._live = LiveScreen(self._err.console)
        live = live_display(self._err.console) if self._err.console.is_terminal else None
        self._watch = WatchScreen(live, self._err.print)
        self._idle = IdleScreen(self._err)
        self._plan = Plan()
        # Without a terminal: the current part, and the number of its stages that have begun.
        self._tally: Tally | None = None
        self._begun = 0
        self._stage: str | None = None

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """Print the targets and a description of the test."""
        self._plan = plan
        text = (
            f"{', '.join(map(str, targets))}: {plan.description}; {plan.driven_by} in "
            f"{format_count(processes, 'process')}"
        )
        self._err.print(Text(text, style="dim"))
        if not plan.targets:
            self._err.print(Text(_OWN_SERVER, style="dim"))

    def progressed(self, progress: Progress) -> None:
        """Show the progress of the test."""
        if progress.watch is not None:
            self._err.guarded(lambda: self._watch.progressed(progress))
            return
        if progress.idle is not None:
            self._idle.progressed(progress)
            return
        if self._err.console.is_terminal:
            self._err.guarded(lambda: self._live.draw(progress))
        else:
            self._print_progress(progress)

    def _print_progress(self, progress: Progress) -> None:
        """Print a line for each stage that has begun or ended since the previous call."""
        tally = progress.tally
        is_new = tally is not self._tally
        if is_new:
            self._tally, self._stage, self._begun = tally, None, 0
        if progress.phase == "warming up" and is_new:
            self._err.print("warming up")
        if progress.phase in {"running", "finishing"}:
            instant = min(progress.elapsed, math.nextafter(tally.timeline.seconds, 0))
            begun = tally.timeline.segments_begun(instant)
            for number in range(self._begun, begun):
                self._print_end()
                self._stage = _stage(progress, number)
                name = tally.plan.stage_name(tally.stages[number % len(tally.stages)])
                self._err.print(f"{self._stage}: {name}")
            self._begun = begun

    def _print_end(self) -> None:
        """Print that the current stage has ended, if one has begun."""
        if self._tally is None or self._stage is None:
            return
        counts = self._tally.counts
        self._err.print(
            f"{self._stage} has ended: {format_count(counts.messages, 'message')}, "
            f"{format_count(counts.errors.total(), 'error')} so far"
        )
        self._stage = None

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:
        """Print the figures of stages that have ended, as one line each if there are repeats."""
        self.close()
        self._print_end()
        if self._quiet:
            return
        if self._plan.repeat > 1:
            self._output.print(*repeat_lines(repeat, stages))
        else:
            self._print_stages(stages)

    def ended(self, result: Result) -> None:
        """Print the tables of the whole test, the first failures, and the verdict."""
        self.close()
        if self._quiet:
            return
        if result.watch is not None:
            if result.watch.outages:
                self._output.print(outage_table(result.watch), Text())
            self._output.print(watch_summary(result, result.watch), wrap=False)
            return
        if result.idle is not None:
            self._output.print(idle_table(result.idle), Text())
            self._output.print(idle_summary(result, result.idle), wrap=False)
            return
        if self._plan.repeat > 1:
            self._output.print(Text())
            self._print_stages(result.stages)
        if result.by_target:
            self._output.print(target_table(result), Text())
        self._output.print(whole_table(result), Text())
        if parts := evidence_parts(result):
            self._output.print(*parts)
        if result.capacity is not None:
            self._output.print(capacity_table(result.capacity), Text())
        self._output.print(summary(result), wrap=False)

    def show(self, result: Result) -> None:
        """Print a saved result in the same way as after its test."""
        self._plan = result.plan
        if result.watch is not None or result.idle is not None:
            pass
        elif result.repeats:
            for number, repeat in enumerate(result.repeats, 1):
                self.measured(number, repeat.stages)
        else:
            self.measured(1, result.stages)
        self.ended(result)

    def close(self) -> None:
        """Remove the live screen."""
        self._err.guarded(self._live.close)
        self._err.guarded(self._watch.close)
        self._idle.close()

    def _print_stages(self, stages: Sequence[StageResult]) -> None:
        for stage in stages:
            self._output.print(stage_table(self._plan, stage), Text())


def _stage(progress: Progress, number: int) -> str:
    """Return the name of a stage of a part: `stage 2 of 3`, `repeat 1 of 5, stage 2 of 3`."""
    plan = progress.tally.plan
    stages = len(plan.run_stages)
    of_part = progress.part - 1 if plan.reopen else number
    stage = f"stage {of_part % stages + 1} of {stages}"
    if plan.repeat > 1:
        return f"repeat {progress.tally.repeat} of {plan.repeat}, {stage}"
    return stage
