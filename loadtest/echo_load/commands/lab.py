"""`echo-load lab`: measure the claims of a tutorial on threads, processes and coroutines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from echo_core.command_line import program, settings
from echo_core.command_line.arguments import Command
from echo_core.errors import ExitCode
from echo_load.commands import options

if TYPE_CHECKING:
    from echo_load.lab.outcome import Outcome


@click.group(
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Measure claims about threads, processes and coroutines.",
)
def lab() -> None:
    """Measure claims of a tutorial about threads, processes and coroutines on this machine.

    Each claim is an experiment that runs in its own process; its verdict is computed from the
    measurements.
    """


@lab.command(
    "list",
    cls=Command,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="List the experiments.",
)
def list_experiments() -> None:
    """List the experiments, with the claims that they test."""
    with program.needs_extra("load"):
        from echo_load.lab.catalogue import chapters
        from echo_load.lab.console import listed
        from echo_load.report.output import Output
    output = Output(sys.stdout)
    output.print(listed(chapters()))
    output.check()


@lab.command(
    "run",
    cls=Command,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Run experiments.",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--quick",
    is_flag=True,
    help="Use smaller numbers and fewer repeats, for about two minutes in all.",
)
@click.option("--json", is_flag=True, help="Print only the outcomes, as JSON.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=options.FILE,
    help="Also write the outcomes to a file, as JSON.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=options.FILE,
    help="Write an HTML report in one file that needs no network.",
)
@settings.config_option
def run(
    names: tuple[str, ...], quick: bool, json: bool, output: Path | None, html: Path | None
) -> ExitCode:
    """Run all experiments, or those named.

    NAME is an experiment or a chapter of `echo-load lab list`. A claim that does not hold is a
    result, not a failure.

    Exit codes: 0 all were run, 1 an experiment failed to run, 2 usage error, 130 interrupted.
    """
    with program.needs_extra("load"):
        from echo_load.errors import LostReportError
        from echo_load.lab.catalogue import choose
        from echo_load.lab.console import Screen
        from echo_load.lab.outcome import to_json
        from echo_load.lab.running import Laboratory
        from echo_load.report.output import Output
        from echo_load.report.output_files import OutputFiles
        from echo_load.runner.controller import Interruption
    chosen = choose(names)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    outcomes: list[Outcome] = []
    makers: list[tuple[Path, Callable[[], bytes]]] = []
    if output is not None:
        makers.append((output, lambda: to_json(outcomes, started_at, quick=quick)))
    if html is not None:
        with program.needs_extra("report"):
            from echo_load.lab.page import render
        makers.append((html, lambda: render(outcomes, started_at, quick=quick)))
    files = OutputFiles([path for path, _ in makers], options.inputs())
    screen = Screen(Output(sys.stdout), quiet=json)
    interruption = Interruption()
    laboratory = Laboratory(quick=quick, is_interrupted=lambda: interruption.requested)
    with ExitStack() as stack:
        stack.enter_context(interruption.by_signals(laboratory.kill))
        stack.callback(screen.close)
        for outcome in laboratory.outcomes(chosen, screen.began):
            outcomes.append(outcome)
            screen.ended(outcome)
        screen.finished(outcomes, len(chosen))
        # Outcomes that were measured before an interruption are written, too.
        lost = files.write(makers)
    if json:
        screen.output.print_json(to_json(outcomes, started_at, quick=quick))
    code = ExitCode.FAILED if any(one.status == "broke" for one in outcomes) else ExitCode.OK
    code = ExitCode.INTERRUPTED if interruption.requested else code
    if screen.output.failure is not None:
        lost.append(screen.output.failure)
    if lost:
        raise LostReportError("; ".join(lost), code)
    return code
