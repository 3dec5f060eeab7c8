"""`echo-load stress`: load an echo service with 100, then 1000 connections."""

from __future__ import annotations

from typing import Any

import click

from echo_core.command_line import option_types, program, settings
from echo_core.command_line.arguments import Example
from echo_core.command_line.option_groups import heading
from echo_core.command_line.target_argument import targets_argument
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode
from echo_load.commands import options
from echo_load.commands.reporting_command import ReportingCommand
from echo_load.flags import errors_name_flags

_EXAMPLES = (
    Example("100, then 1000 threads", "echo-load stress 10.0.0.7:50007"),
    Example(
        "100, then 5000 connections on gevent's hub, for 20 seconds each",
        "echo-load stress --engine hub -c 100 -c 5000 -d 20s 10.0.0.7:50007",
    ),
)


@click.command(
    cls=ReportingCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Open 100, then 1000 connections, with a thread per connection.",
    examples=_EXAMPLES,
)
@targets_argument(
    nargs=1,
    required=False,
    metavar="[TARGET]",
    setting=options.TARGETS,
    meaning="Without one, an echo-server is started, tested and stopped.",
)
@heading("Load")
@click.option(
    "-c",
    "--connections",
    type=options.CONNECTIONS,
    multiple=True,
    default=["100", "1000"],
    help="Number of connections in a stage. Repeat for more stages.",
)
@click.option(
    "-d",
    "--duration",
    type=option_types.POSITIVE_DURATION,
    default="5s",
    help="Duration of each stage.",
)
@heading("Generator")
@click.option(
    "--engine",
    type=click.Choice(["hub", "greenlets", "threads"]),
    default="threads",
    help="Engine that drives the connections.",
)
@options.processes_option
@options.timeout_options
@options.connecting_options
@options.test_options
@settings.config_option
def stress(
    target: Endpoint | None,
    connections: tuple[int, ...],
    duration: float,
    **others: Any,
) -> ExitCode:
    """Stress an echo service, with a thread and a blocking socket per connection.

    All connections of a stage are opened first and then released together. Each sends `hello 0`,
    `hello 1` and so on, the next message when the last reply has arrived, and every reply is
    compared byte for byte. A lost connection is not reopened.

    Exit codes: 0 passed, 1 failed, 2 usage error, 3 the echo-server did not start, 99 a threshold
    was crossed, 130 interrupted.
    """
    with program.needs_extra("load"):
        from echo_load.plan.plan import Plan
        from echo_load.plan.stages import StagePlan
    fields, reporting = options.split_options(others)
    with errors_name_flags():
        plan = Plan(
            targets=(str(target),) if target is not None else (),
            stages=tuple(
                StagePlan(first=count, last=count, duration=duration) for count in connections
            ),
            reopen=True,
            hello=True,
            reconnect=False,
            **fields,
        )
    return options.run_and_report("stress", plan, reporting)
