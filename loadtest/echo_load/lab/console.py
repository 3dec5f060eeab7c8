"""The outcomes of experiments on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.status import Status as Spinner
from rich.table import Table
from rich.text import Text

from echo_load.lab.experiment import Chapter, Experiment
from echo_load.lab.notation import sentence
from echo_load.lab.outcome import Outcome, Status, summary
from echo_load.lab.tables import tables
from echo_load.report.output import Output

_STYLES: dict[Status, tuple[str, str]] = {
    "holds": ("✓", "bold green"),
    "holds within a limit": ("≈", "bold yellow"),
    "does not hold": ("✕", "bold red"),
    "cannot run here": ("-", "bold"),
    "broke": ("!", "bold red"),
    "interrupted": ("!", "bold yellow"),
}


class Screen:
    """Display of experiments as they run: progress on standard error, outcomes on output.

    Args:
        output: output for the outcomes.
        quiet: whether to print no outcomes, because JSON is printed.

    Attributes:
        output: the same.
    """

    def __init__(self, output: Output, *, quiet: bool) -> None:
        self.output = output
        self._quiet = quiet
        self._err = Output(sys.stderr)
        self._spinner: Spinner | None = None

    def began(self, experiment: Experiment) -> None:
        """Show which experiment is running."""
        said = f"{experiment.name} ..."
        if self._err.can_be_redrawn:
            self._spinner = Spinner(Text(said, style="dim"), console=self._err.console)
            self._err.guarded(self._spinner.start)
        elif self._quiet:
            self._err.print(said)

    def ended(self, outcome: Outcome) -> None:
        """Print the outcome of an experiment."""
        self.close()
        if not self._quiet:
            # Tables are as wide as they need to be.
            self.output.guarded(lambda: self.output.console.print(shown(outcome)))

    def finished(self, outcomes: Sequence[Outcome], chosen: int) -> None:
        """Print the number of outcomes of each kind.

        Args:
            outcomes: outcomes of the experiments that were run.
            chosen: number of experiments that were to be run.
        """
        if self._quiet:
            return
        missing = chosen - len(outcomes)
        said = f"{summary(outcomes)}{f'; {missing} were not run' if missing else ''}"
        self.output.print(Text(sentence(said), style="bold"))

    def close(self) -> None:
        """Remove the progress from the terminal."""
        if self._spinner is not None:
            self._err.guarded(self._spinner.stop)
            self._spinner = None


def listed(chapters: Sequence[Chapter]) -> RenderableType:
    """Return a list of the experiments by chapter, with their claims."""
    parts: list[RenderableType] = []
    for chapter in chapters:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(style="dim")
        for experiment in chapter.experiments:
            table.add_row(experiment.name, experiment.claim)
        title = Text.assemble((chapter.title, "bold"), (f"  {chapter.name}", "dim"))
        parts += [title, Padding(table, (0, 0, 1, 2))]
    return Group(*parts)


def shown(outcome: Outcome) -> RenderableType:
    """Return an outcome to print: verdict, claim, method, statement and measurements."""
    mark, style = _STYLES[outcome.status]
    experiment = outcome.experiment
    head = Text.assemble(
        (f"{mark} {outcome.status}", style), "  ", (experiment.name, "bold"), overflow="fold"
    )
    said: list[RenderableType] = [
        Text(f"“{experiment.claim}”", style="italic"),
        Text(experiment.method, style="dim"),
        Text(sentence(outcome.statement)),
    ]
    said += tables(outcome.measurements)
    return Group(head, Padding(Group(*said), (0, 0, 1, 2)))
