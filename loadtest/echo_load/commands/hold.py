"""`echo-load hold`: keep many connections open, and probe them."""

from __future__ import annotations

from typing import Any

import click

from echo_core.command_line import option_types, program, settings
from echo_core.command_line.arguments import Example
from echo_core.command_line.option_groups import heading
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode
from echo_load.commands import options
from echo_load.commands.reporting_command import ReportingCommand
from echo_load.flags import errors_name_flags

_EXAMPLES = (
    Example(
        "20,000 connections for five minutes, each probed every 30 seconds",
        "echo-load hold -c 20k --cycle 30s -d 5m 10.0.0.7:50007",
    ),
    Example(
        "60,000 connections from four source addresses",
        "echo-load hold -c 60k --source-ip 10.0.0.16/30 10.0.0.7:50007",
    ),
)


@click.command(
    cls=ReportingCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Hold many connections open and probe each of them.",
    examples=_EXAMPLES,
)
@options.optional_targets
@heading("Load")
@click.option(
    "-c",
    "--connections",
    type=options.CONNECTIONS,
    default="10k",
    help="Number of connections to hold.",
)
@click.option(
    "-d",
    "--duration",
    type=option_types.POSITIVE_DURATION,
    help="Time to hold the connections once all are open.  [default: two cycles]",
)
@click.option(
    "--cycle",
    type=option_types.POSITIVE_DURATION,
    default="10s",
    help="Interval at which each connection is probed with a message.",
)
@options.payload_size_option
@options.processes_option
@options.timeout_options
@options.connecting_options
@options.test_options
@settings.config_option
def hold(
    targets: tuple[Endpoint, ...],
    connections: int,
    cycle: float,
    duration: float | None,
    **others: Any,
) -> ExitCode:
    """Open many connections, keep them open, and probe each in turn with a checked message.

    A lost connection is reported, and not reopened.
    One source address can open about 28,000 connections to one target; --source-ip adds more, on
    this machine for example `--source-ip 127.0.1.0/24`.

    Exit codes: 0 all were held, 1 one was lost or failed, 2 usage error, 3 the echo-server did not
    start, 99 a threshold was crossed, 130 interrupted.
    """
    with program.needs_extra("load"):
        from echo_load.plan.plan import Plan
    fields, reporting = options.split_options(others)
    with errors_name_flags():
        plan = Plan(
            targets=tuple(map(str, targets)),
            connections=connections,
            rate=connections / cycle,
            duration=duration or 2 * cycle,
            connects_in_flight=256,
            reconnect=False,
            **fields,
        )
    return options.run_and_report("hold", plan, reporting)
