"""The tables of a test on standard output, during and after the test."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from echo_core.endpoint import Endpoint
from echo_load.plan.plan import Plan
from echo_load.report.capacity import capacity_table
from echo_load.report.evidence import evidence_parts
from echo_load.report.idle import idle_table
from echo_load.report.output import Output
from echo_load.report.summaries import summary_of
from echo_load.report.tables import repeat_lines, stage_table, target_table, whole_table
from echo_load.report.watching import availability_table, outage_table
from echo_load.results.result import Result, StageResult
from echo_load.runner.observer import Observer


class ConsoleReport(Observer):
    """The tables and the summary of a test.

    Args:
        output: stream on which to print them.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._plan = Plan()

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:  # noqa: ARG002
        """Note the plan, on which the tables depend."""
        self._plan = plan

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:
        """Print the figures of stages that have ended, as one line each if there are repeats."""
        if self._plan.repeat > 1:
            self._output.print(*repeat_lines(repeat, stages))
        else:
            self._print_stages(stages)

    def ended(self, result: Result) -> None:
        """Print the tables of the whole test, the first failures, and the verdict."""
        if result.watch is not None:
            if len(result.watch.targets) > 1:
                self._output.print(availability_table(result.watch), Text())
            if result.watch.outages:
                self._output.print(outage_table(result.watch), Text())
            self._print_evidence(result)
        elif result.idle is not None:
            self._output.print(idle_table(result.idle), Text())
            self._print_evidence(result)
        else:
            self._print_whole(result)
        self._output.print(summary_of(result), wrap=False)

    def _print_whole(self, result: Result) -> None:
        if self._plan.repeat > 1:
            self._output.print(Text())
            self._print_stages(result.stages)
        if result.by_target:
            self._output.print(target_table(result), Text())
        self._output.print(whole_table(result), Text())
        self._print_evidence(result)
        if result.capacity is not None:
            self._output.print(capacity_table(result.capacity), Text())

    def _print_evidence(self, result: Result) -> None:
        if parts := evidence_parts(result):
            self._output.print(*parts)

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

    def _print_stages(self, stages: Sequence[StageResult]) -> None:
        for stage in stages:
            self._output.print(stage_table(self._plan, stage), Text())
