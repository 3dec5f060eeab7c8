"""The progress of a test on standard error."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from rich.text import Text

from echo_core.endpoint import Endpoint
from echo_core.units import format_count
from echo_load.plan.plan import Plan
from echo_load.report.idle import IdleScreen
from echo_load.report.live import LiveScreen
from echo_load.report.output import Output
from echo_load.report.progress_lines import ProgressLines
from echo_load.report.watching import WatchScreen, live_display
from echo_load.results.result import Result, StageResult
from echo_load.runner.observer import Observer, Progress
from echo_load.runner.tally import Tally

_OWN_SERVER = "no target was given, so this is an echo-server of its own; HOST:PORT tests yours"


class ProgressReport(Observer):
    """The progress of a test on standard error.

    On a terminal a live screen is drawn. Otherwise a line is printed when a stage begins and when
    it has ended, and every few seconds in between.
    """

    def __init__(self) -> None:
        self._err = Output(sys.stderr)
        self._is_redrawn = self._err.can_be_redrawn
        self._lines = ProgressLines(self._err)
        self._live = LiveScreen(self._err.console)
        live = live_display(self._err.console) if self._is_redrawn else None
        self._watch = WatchScreen(live, lambda line: self._lines.print(line, wrap=True))
        self._idle = IdleScreen(self._err)
        # Without a terminal: the current part, and the number of its stages that have begun.
        self._tally: Tally | None = None
        self._begun = 0
        self._stage: str | None = None

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """Print the targets and a description of the test."""
        text = (
            f"{', '.join(map(str, targets))}: {plan.description}; {plan.driven_by} in "
            f"{format_count(processes, 'process')}"
        )
        self._lines.print(Text(text, style="dim"), wrap=True)
        if not plan.targets:
            self._lines.print(Text(_OWN_SERVER, style="dim"), wrap=True)

    def progressed(self, progress: Progress) -> None:
        """Show the progress of the test."""
        if progress.watch is not None:
            self._err.guarded(lambda: self._watch.progressed(progress))
        if not self._is_redrawn:
            if progress.watch is None and progress.idle is None:
                self._print_stages(progress)
            self._lines.progressed(progress)
        elif progress.idle is not None:
            self._err.guarded(lambda: self._idle.draw(progress))
        elif progress.watch is None:
            self._err.guarded(lambda: self._live.draw(progress))

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:  # noqa: ARG002
        """Print that the last stage of a part has ended."""
        self.close()
        self._print_end()

    def ended(self, result: Result) -> None:  # noqa: ARG002  # its tables are on standard output
        """Remove the live screen."""
        self.close()

    def close(self) -> None:
        """Remove the live screen."""
        self._err.guarded(self._live.close)
        self._err.guarded(self._watch.close)
        self._idle.close()

    def _print_stages(self, progress: Progress) -> None:
        """Print a line for each stage that has begun or ended since the previous call."""
        tally = progress.tally
        is_new = tally is not self._tally
        if is_new:
            self._tally, self._stage, self._begun = tally, None, 0
        if progress.phase == "warming up" and is_new:
            self._lines.print("warming up")
        if progress.phase in {"running", "finishing"}:
            instant = min(progress.elapsed, math.nextafter(tally.timeline.seconds, 0))
            begun = tally.timeline.segments_begun(instant)
            for number in range(self._begun, begun):
                self._print_end()
                self._stage = _stage(progress, number)
                name = tally.plan.stage_name(tally.stages[number % len(tally.stages)])
                self._lines.print(f"{self._stage}: {name}")
            self._begun = begun

    def _print_end(self) -> None:
        """Print that the current stage has ended, if one has begun."""
        if self._tally is None or self._stage is None:
            return
        counts = self._tally.counts
        self._lines.print(
            f"{self._stage} has ended: {format_count(counts.messages, 'message')}, "
            f"{format_count(counts.errors.total(), 'error')} so far"
        )
        self._stage = None


def _stage(progress: Progress, number: int) -> str:
    """Return the name of a stage of a part: `stage 2 of 3`, `repeat 1 of 5, stage 2 of 3`."""
    plan = progress.tally.plan
    stages = len(plan.run_stages)
    of_part = progress.part - 1 if plan.reopen else number
    stage = f"stage {of_part % stages + 1} of {stages}"
    if plan.repeat > 1:
        return f"repeat {progress.tally.repeat} of {plan.repeat}, {stage}"
    return stage
