"""The terminal: a live screen on standard error, tables and the verdict on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

import click
from rich.console import Console, RenderableType
from rich.text import Text

from echo_core.endpoint import Endpoint
from echo_load.controller import Observer, Progress
from echo_load.errors import StandardOutputError
from echo_load.plan import Plan
from echo_load.report.live import LiveScreen
from echo_load.report.tables import (
    processes_in_words,
    repeat_lines,
    stage_table,
    summary,
    whole_table,
)
from echo_load.result import Result, StageResult

_PLAIN_WIDTH = 100
_TABLE_WIDTH = 96


class Output:
    """Standard output, of which a test does not depend: what goes wrong with it is said later."""

    def __init__(self) -> None:
        self._console = console(sys.stdout)
        self._failure: OSError | None = None

    def print(self, *parts: RenderableType, wrap: bool = True) -> None:
        """Print some things, one below the other; without wrapping lines stay whole."""
        width = min(self._console.width, _TABLE_WIDTH) if wrap else None
        self.guarded(lambda: self._console.print(*parts, sep="\n", soft_wrap=not wrap, width=width))

    def print_json(self, content: bytes) -> None:
        """Print JSON as it is."""
        self.guarded(lambda: click.echo(content, nl=False))

    def raise_failure(self) -> None:
        """Say now what went wrong.

        Raises:
            BrokenPipeError: its reader has left.
            StandardOutputError: it cannot be written to.
        """
        if isinstance(self._failure, BrokenPipeError):
            raise self._failure
        if self._failure is not None:
            raise StandardOutputError(f"cannot write the output: {self._failure.strerror}")

    def guarded(self, write: Callable[[], None]) -> None:
        """Write, unless writing has failed before."""
        if self._failure is not None:
            return
        try:
            write()
            sys.stdout.flush()
        except OSError as error:
            self._failure = error
            # What is still in its buffer would fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ConsoleReport(Observer):
    """Shows a test while it runs and afterwards.

    On a terminal a live screen is drawn on standard error; elsewhere a line a part is all.

    Args:
        output: where its tables go.
        quiet: print no tables; something else is printed.
    """

    def __init__(self, output: Output, *, quiet: bool = False) -> None:
        self._output = output
        self._quiet = quiet
        self._err = console(sys.stderr)
        self._live = LiveScreen(self._err)
        self._plan = Plan()
        self._part = 0

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """Print what is tested, and how."""
        self._plan = plan
        self._err.print(
            f"{', '.join(map(str, targets))}: {plan.description}; {plan.driven_by} in "
            f"{processes_in_words(processes)}",
            style="dim",
        )

    def progressed(self, progress: Progress) -> None:
        """Draw how far the test is."""
        if self._err.is_terminal:
            self._live.draw(progress)
        elif progress.part != self._part:
            self._err.print(_part(progress))
        self._part = progress.part

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:
        """Print the figures of stages that have ended; of several repeats, a line each."""
        self.close()
        if self._quiet:
            return
        if self._plan.repeat > 1:
            self._output.print(*repeat_lines(repeat, stages))
        else:
            self._print_stages(stages)

    def ended(self, result: Result) -> None:
        """Print what concerns all stages: reconciliation, the generator, the verdict."""
        self.close()
        if self._quiet:
            return
        if self._plan.repeat > 1:
            self._output.print(Text())
            self._print_stages(result.stages)
        self._output.print(whole_table(result), Text())
        self._output.print(summary(result), wrap=False)

    def show(self, result: Result) -> None:
        """Print a result that was kept, as it was printed when it was made."""
        self._plan = result.plan
        if result.repeats:
            for number, repeat in enumerate(result.repeats, 1):
                self.measured(number, repeat.stages)
        else:
            self.measured(1, result.stages)
        self.ended(result)

    def close(self) -> None:
        """Take the live screen away."""
        self._live.close()

    def _print_stages(self, stages: Sequence[StageResult]) -> None:
        for stage in stages:
            self._output.print(stage_table(self._plan, stage), Text())


def _part(progress: Progress) -> str:
    plan = progress.tally.plan
    stages = progress.parts // plan.repeat
    part = f"stage {(progress.part - 1) % stages + 1} of {stages}"
    return f"repeat {progress.tally.repeat} of {plan.repeat}, {part}" if plan.repeat > 1 else part


def console(stream: TextIO) -> Console:
    """A terminal, or a stream that is none and has a width all the same."""
    made = Console(file=stream, highlight=False)
    return made if made.is_terminal else Console(file=stream, highlight=False, width=_PLAIN_WIDTH)
