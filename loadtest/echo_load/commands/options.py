"""Options that several commands share, and the run of a plan made from them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from echo_client.ip_options import ip_options, ip_version
from echo_client.opening_options import opening_options
from echo_client.tls import TlsOptions
from echo_client.tls_options import tls_options
from echo_core.command_line import option_types, program, settings
from echo_core.command_line.option_groups import Decorator, group
from echo_core.command_line.target_argument import targets_argument
from echo_core.endpoint import NetworkEndpoint
from echo_core.errors import EchoswarmError, ExitCode
from echo_core.units import parse_size_range
from echo_load.commands.reporting_command import note_open_files
from echo_load.flags import errors_name_flags
from echo_load.plan.bounds import (
    MOST_CONNECTIONS,
    MOST_MESSAGES,
    MOST_PROCESSES,
    MOST_REPEATS,
)

if TYPE_CHECKING:
    from echo_load.plan.plan import Plan
    from echo_load.report.capacity import CapacityReport
    from echo_load.report.files import ReportFiles
    from echo_load.report.progress import ProgressReport
    from echo_load.results.result import Result
    from echo_load.runner.observer import Observer

    Screen = CapacityReport | ProgressReport

CONNECTIONS = option_types.whole_number("count", 1, MOST_CONNECTIONS)
MESSAGES = option_types.whole_number("count", 1, MOST_MESSAGES)

FILE = option_types.File(Path)


def together(*options: Decorator) -> Decorator:
    """Return one decorator for several options, which the help lists in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# The setting that names the targets of all commands.
TARGETS = "targets"
optional_targets = targets_argument(
    setting=TARGETS,
    meaning="Several share the connections. Without one, an echo-server is started, tested and "
    "stopped.",
)

processes_option = group(
    "Generator",
    click.option(
        "--processes",
        type=option_types.whole_number("count", 1, MOST_PROCESSES),
        help="Number of generator processes that share the connections.  [default: half of the "
        "cores, or more if the descriptor limit requires it]",
    ),
)
timeout_options = group(
    "Connections",
    click.option(
        "--timeout",
        type=option_types.POSITIVE_DURATION,
        help="Maximum time to wait for a reply.  [default: 10s; 1s over UDP]",
    ),
    click.option(
        "--connect-timeout",
        type=option_types.POSITIVE_DURATION,
        default="5s",
        help="Maximum time to open a connection.",
    ),
)
connecting_options = group(
    "Connections",
    click.option(
        "--connect-rate",
        type=option_types.RATE,
        help="Maximum number of connections opened per second, over all processes.",
    ),
    click.option(
        "--source-ip",
        metavar="ADDRESS|NETWORK",
        multiple=True,
        help="Local addresses to connect from, in turn; separated by commas. Repeatable.",
    ),
    ip_options,
    tls_options,
    group(
        "TLS",
        click.option(
            "--tls-resume",
            is_flag=True,
            help="Resume the TLS session of an earlier connection, as soon as there is one.",
        ),
    ),
    opening_options,
)
# Options of a command that connects from one address.
single_source_options = group(
    "Connections",
    click.option("--source-ip", metavar="ADDRESS", help="Local address to connect from."),
    ip_options,
    tls_options,
    opening_options,
)


def _metrics_address(text: str) -> NetworkEndpoint:
    with program.needs_extra("load"):
        from echo_load.report.prometheus import parse_listen
    return parse_listen(text)


def checked_threshold(text: str) -> str:
    """Check a threshold, and return its text unchanged.

    Raises:
        InvalidValueError: the text is not a threshold.
    """
    with program.needs_extra("load"):
        from echo_load.plan.thresholds import Threshold
    Threshold.parse(text)
    return text


def _abort_on(text: str) -> str:
    """Check a threshold on which to abort, and return its text unchanged."""
    with program.needs_extra("load"):
        from echo_load.plan.thresholds import Threshold
    with errors_name_flags():
        Threshold.parse_abort(text)
    return text


verdict_options = group(
    "Verdict",
    click.option(
        "--repeat",
        type=option_types.whole_number("count", 1, MOST_REPEATS),
        default="1",
        help="Number of times to run the whole test, each time on new connections; `echo-load "
        "compare` needs several.",
    ),
    click.option(
        "--threshold",
        type=option_types.Parsed("limit", checked_threshold),
        metavar="LIMIT",
        multiple=True,
        help='Limit that must hold, or the exit code is 99: "p99<5ms", "service.p99.9<=2ms", '
        '"connect.max<1s", "errors<0.1%", "loss<1%", "retransmits<100", "jitter<2ms", '
        '"messages_per_second>10k", "bytes_per_second>50MB", "bits_per_second>=1Gbit"; for one of '
        'several targets, "p99{tcp://HOST:PORT}<5ms"; for one stage, "p99{stage=2}<5ms". '
        "Without a limit on errors or loss, no error is tolerated. Repeatable.",
    ),
    click.option(
        "--abort-on",
        type=option_types.Parsed("limit", _abort_on),
        metavar="LIMIT",
        multiple=True,
        help="Threshold that ends the test as soon as it is crossed; it may also be written as the "
        'condition to stop on: "p99>50ms". Repeatable.',
    ),
)
json_options = group(
    "Output",
    click.option("--json", is_flag=True, help="Print only the result, as JSON."),
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=FILE,
        help="Also write the result to a file, as JSON.",
    ),
    click.option(
        "-q", "--quiet", is_flag=True, help="Print the result and errors only, no progress."
    ),
)
result_options = group(
    "Verdict",
    click.option(
        "--reconcile",
        metavar="ADMIN_URL",
        help="Compare the generators' counts with those of the echo-server with this --admin "
        "page. Automatic if the test starts the server.",
    ),
    json_options,
)
html_option = group(
    "Output",
    click.option(
        "--html",
        metavar="FILE",
        type=FILE,
        help="Write an HTML report in one file that needs no network.",
    ),
)
summary_options = group(
    "Output",
    html_option,
    click.option(
        "--junit",
        metavar="FILE",
        type=FILE,
        help="Write the outcome as JUnit XML, which CI systems show as tests.",
    ),
    click.option(
        "--markdown",
        metavar="FILE",
        type=FILE,
        help="Write a summary in GitHub's Markdown, for a pull request.",
    ),
)
report_options = group(
    "Output",
    summary_options,
    click.option(
        "--csv", metavar="FILE", type=FILE, help="Write the figures of each second to a CSV file."
    ),
    click.option(
        "--hgrm",
        metavar="FILE",
        type=FILE,
        help="Write the response time percentiles in HdrHistogram's text format, in milliseconds.",
    ),
)
results_argument = click.argument(
    "results",
    type=click.Path(path_type=Path),
    nargs=-1,
    required=True,
    metavar="RESULT.json...",
)
prometheus_option = group(
    "Output",
    click.option(
        "--prometheus",
        type=option_types.Parsed("address", _metrics_address),
        metavar="[HOST:]PORT",
        help="Serve the figures to Prometheus during the test.",
    ),
)
# Options of every command that runs a test.
test_options = together(verdict_options, result_options, report_options, prometheus_option)


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return names of results: the stems of their files, or whole paths if stems are equal."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


payload_size_option = group(
    "Payload",
    click.option(
        "--payload-size",
        type=option_types.Parsed("size", parse_size_range),
        default="64",
        metavar="SIZE|FROM-TO",
        help="Message size, or a range of sizes such as 64-16KiB.",
    ),
)


@dataclass(frozen=True)
class Reporting:
    """The reporting options of a command.

    Attributes:
        reconcile: URL of the target's admin page.
        json: whether to print the result as JSON.
        output: file for the result as JSON.
        html: file for the HTML report.
        csv: file for the figures of each second.
        hgrm: file for the percentiles of the response time.
        junit: file for the outcome as JUnit XML.
        markdown: file for the summary in Markdown.
        prometheus: address on which to serve metrics.
        quiet: whether to print no progress.
    """

    reconcile: str | None
    json: bool
    output: Path | None
    html: Path | None
    csv: Path | None
    hgrm: Path | None
    junit: Path | None
    markdown: Path | None
    prometheus: NetworkEndpoint | None
    quiet: bool


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], Reporting]:
    """Split the options of a test command into fields of a plan and reporting options.

    A command may lack options of thresholds and reports, and have `single_source_options`.

    Raises:
        click.UsageError: -4 and -6 are both given.
    """
    reporting: dict[str, Any] = {field.name: options.get(field.name) for field in fields(Reporting)}
    sources = options["source_ip"] or ()
    sources = (sources,) if isinstance(sources, str) else sources
    tls = {field.name: options[f"tls_{field.name}"] for field in fields(TlsOptions)}
    renamed = {"ipv4", "ipv6", "source_ip", "threshold", *(f"tls_{name}" for name in tls)}
    same = {name: options[name] for name in options.keys() - reporting.keys() - renamed}
    plan_fields = {
        **same,
        "ip_version": ip_version(ipv4=options["ipv4"], ipv6=options["ipv6"]),
        "source_ips": tuple(one for text in sources for one in text.split(",")),
        "thresholds": options.get("threshold", ()),
        "tls": TlsOptions(**tls),
    }
    return plan_fields, Reporting(**reporting)


def inputs(*paths: Path | str | None) -> list[Path | str]:
    """Return the files that a command reads: `paths` and the configuration file."""
    return [path for path in (*paths, settings.config_file()) if path is not None]


def run_and_report(name: str, plan: Plan, reporting: Reporting) -> ExitCode:
    """Run a plan, show its progress, report the result, and return the exit code.

    Args:
        name: name of the command.
        plan: the test.
        reporting: reporting options of the command.
    """
    with program.needs_extra("load"):
        from echo_load.runner.controller import run

    def run_plan(observer: Observer) -> Result:
        return run(
            plan,
            command=name,
            observer=observer,
            reconcile=reporting.reconcile,
            handle_signals=True,
        )

    return report_on(name, run_plan, plan, reporting, description=plan.description)


def report_on(
    name: str,
    run_test: Callable[[Observer], Result],
    plan: Plan,
    reporting: Reporting,
    *,
    description: str = "",
    screen: Screen | None = None,
) -> ExitCode:
    """Run a test, show its progress, report the result, and return the exit code.

    Args:
        name: name of the command.
        run_test: runs the test, and reports its progress to an observer.
        plan: the test, whose input files must not be overwritten.
        reporting: reporting options of the command.
        description: the test in one line of text, in the title of a report of an error; empty if it
            varies.
        screen: shows the progress of a test of many runs; None for that of a single run.
    """
    with program.needs_extra("load"):
        from echo_load.errors import LostReportError
        from echo_load.report.console import ConsoleReport
        from echo_load.report.files import ReportFiles
        from echo_load.report.output import Output
        from echo_load.report.progress import ProgressReport
    files = ReportFiles(
        output=reporting.output,
        html=reporting.html,
        csv=reporting.csv,
        hgrm=reporting.hgrm,
        junit=reporting.junit,
        markdown=reporting.markdown,
        inputs=inputs(plan.payload_file, *plan.tls.files),
    )
    note_open_files()
    output = Output(sys.stdout)
    tables = ConsoleReport(output)
    with ExitStack() as stack:
        observers: list[Observer] = []
        if not reporting.quiet:
            progress: Screen = screen or ProgressReport()
            stack.callback(progress.close)
            observers.append(progress)
        if screen is None and not reporting.json:
            observers.append(tables)
        observers += _metrics(reporting, stack)
        title = " ".join(("echo-load", name, *plan.targets))
        title += f": {description}" if description else ""
        result = _result(run_test, observers, files, title)
    # Files are written first, because writing to standard output may fail.
    lost = files.write([result], [name])
    if reporting.json:
        output.print_json(result.to_json())
    elif screen is not None:
        tables.show(result)
    if output.failure is not None:
        lost.append(output.failure)
    if lost:
        raise LostReportError("; ".join(lost), result.exit_code)
    return result.exit_code


def _metrics(reporting: Reporting, stack: ExitStack) -> list[Observer]:
    """Serve metrics until the stack is closed, if they are to be; return what has to observe."""
    if reporting.prometheus is None:
        return []
    with program.needs_extra("load"):
        from echo_load.report.prometheus import PrometheusReport
    metrics = stack.enter_context(PrometheusReport(reporting.prometheus))
    if not reporting.quiet:
        click.echo(f"metrics {metrics.url}", err=True)
    return [metrics]


def _result(
    run_test: Callable[[Observer], Result],
    observers: Sequence[Observer],
    files: ReportFiles,
    title: str,
) -> Result:
    """Run a test; if it ends with an error, write that to the reports that can say so.

    Raises:
        EchoswarmError: the error.
    """
    from echo_load.errors import LostReportError
    from echo_load.runner.observer import Observers

    try:
        with errors_name_flags():
            return run_test(Observers(*observers))
    except EchoswarmError as error:
        if lost := files.write_error(title, str(error)):
            raise LostReportError("; ".join((str(error), *lost)), error.exit_code) from error
        raise
