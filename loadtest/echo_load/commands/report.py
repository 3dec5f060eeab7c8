"""`echo-load report`: make reports from saved results."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from echo_core.command_line import program, settings
from echo_load.commands import options
from echo_load.commands.reporting_command import ReportingCommand, note_open_files


@click.command(
    cls=ReportingCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Make reports from saved results.",
)
@options.results_argument
@options.report_options
@settings.config_option
def report(
    results: tuple[Path, ...],
    html: Path | None,
    csv: Path | None,
    hgrm: Path | None,
    junit: Path | None,
    markdown: Path | None,
) -> None:
    """Make reports from results that `echo-load run` and other commands wrote with --output.

    Without options, the same tables are printed as at the end of the test. --html shows several
    results in the same charts; --junit and --markdown write them one after the other.
    """
    with program.needs_extra("load"):
        from echo_load.errors import LostReportError
        from echo_load.report.console import ConsoleReport
        from echo_load.report.files import ReportFiles
        from echo_load.report.output import Output
        from echo_load.results.result import load_result
    if len(results) > 1 and (csv or hgrm):
        raise click.UsageError("--csv and --hgrm take one result; the other reports take several")
    files = ReportFiles(
        html=html,
        csv=csv,
        hgrm=hgrm,
        junit=junit,
        markdown=markdown,
        inputs=options.inputs(*results),
    )
    loaded = [load_result(path) for path in results]
    names = options.names_of(results)
    note_open_files()
    if lost := files.write(loaded, names):
        raise LostReportError("; ".join(lost))
    if html or csv or hgrm or junit or markdown:
        return
    output = Output(sys.stdout)
    for number, (name, result) in enumerate(zip(names, loaded, strict=True)):
        if len(results) > 1:
            output.print("\n" * (number > 0) + name)
        ConsoleReport(output).show(result)
    output.check()
