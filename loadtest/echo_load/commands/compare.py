"""`echo-load compare`: compare results, and tell a difference from noise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from echo_core.command_line import option_types, program, settings
from echo_core.errors import ExitCode
from echo_load.commands import options
from echo_load.commands.reporting_command import ReportingCommand, note_open_files
from echo_load.plan.bounds import DEFAULT_MARGIN


@click.command(
    cls=ReportingCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Compare results, with a verdict on each figure.",
)
@options.results_argument
@click.option(
    "--margin",
    type=option_types.PERCENTAGE,
    default=f"{DEFAULT_MARGIN:.0%}",
    help="Smallest change that counts as a difference.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["worse"]),
    help="Exit with code 99 if any figure is worse than in the first result.",
)
@click.option("--json", is_flag=True, help="Print only the comparisons, as JSON.")
@click.option(
    "--markdown",
    metavar="FILE",
    type=options.FILE,
    help="Also write the comparisons in GitHub's Markdown, for a pull request.",
)
@settings.config_option
def compare(
    results: tuple[Path, ...],
    margin: float,
    fail_on: Literal["worse"] | None,
    json: bool,
    markdown: Path | None,
) -> ExitCode:
    """Compare results written with --output, figure by figure, each with the first one.

    Each figure is better, worse, no different, or too noisy to tell, with a confidence interval of
    95 % for all of them together: at most 5 % of comparisons of equal results say better or worse.
    This needs several repeats of each test: `echo-load run --repeat 5 -o A.json`.

    Exit codes: 0 compared, 2 usage error, 99 worse (with --fail-on worse).
    """
    with program.needs_extra("load"):
        from echo_load.errors import LostReportError
        from echo_load.report.comparison import ComparisonTable, conclusion
        from echo_load.report.markdown import markdown_comparison
        from echo_load.report.output import Output
        from echo_load.report.output_files import OutputFiles
        from echo_load.results.compare import compare as compare_two
        from echo_load.results.compare import to_json
        from echo_load.results.result import load_result
    if len(results) < 2:
        raise click.UsageError("there is nothing to compare; give two results or more")
    files = OutputFiles([markdown] if markdown is not None else [], options.inputs(*results))
    names = options.names_of(results)
    baseline, *others = [load_result(path) for path in results]
    comparisons = [
        compare_two(baseline, other, names=(names[0], name), margin=margin)
        for name, other in zip(names[1:], others, strict=True)
    ]
    note_open_files()
    lost = []
    if markdown is not None:
        lost = files.write([(markdown, lambda: markdown_comparison(comparisons))])
    output = Output(sys.stdout)
    if json:
        output.print_json(to_json(comparisons))
    else:
        for one in comparisons:
            output.print(ComparisonTable(one), conclusion(one))
    worse = any(one.verdict == "worse" for one in comparisons)
    verdict = ExitCode.THRESHOLD if fail_on and worse else ExitCode.OK
    if output.failure is not None:
        lost.append(output.failure)
    if lost:
        raise LostReportError("; ".join(lost), verdict)
    return verdict
