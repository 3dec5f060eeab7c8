"""`echo-load idle`: find out after how long an idle connection is dropped, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from echo_load.results.result import Result
    from echo_load.runner.observer import Observer


_EXAMPLES = (
    Example(
        "Up to 20 minutes, as for a NAT gateway on the way",
        "echo-load idle --up-to 20m 10.0.0.7:50007",
    ),
    Example(
        "The same with TCP keep-alives, which may prevent it",
        "echo-load idle --up-to 20m --keepalive 30s 10.0.0.7:50007",
    ),
    Example(
        "In continuous integration: exit code 99 if five minutes are too long",
        "echo-load idle --up-to 6m --at-least 5m 10.0.0.7:50007",
    ),
)


@click.command(
    cls=ReportingCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Find out after how long an idle connection is dropped, and how.",
    examples=_EXAMPLES,
)
@targets_argument(nargs=1, metavar="TARGET", setting=options.TARGETS)
@heading("Pauses")
@click.option(
    "--up-to",
    type=option_types.POSITIVE_DURATION,
    default="10m",
    help="Longest pause to try, and so about the time that the first round takes.",
)
@click.option(
    "--precision",
    type=option_types.POSITIVE_DURATION,
    help="Largest distance between the longest pause that is kept and the shortest that is not.  "
    "[default: a hundredth of the latter]",
)
@click.option(
    "--at-least",
    type=option_types.POSITIVE_DURATION,
    help="Pause that a connection must survive, or the exit code is 99.",
)
@options.timeout_options
@options.single_source_options
@options.json_options
@options.summary_options
@settings.config_option
def idle(
    target: Endpoint,
    up_to: float,
    precision: float | None,
    at_least: float | None,
    **others: Any,
) -> ExitCode:
    """Find out after how long the path to a service drops an idle connection, and how.

    Connections are opened at the same time, left idle for pauses up to --up-to, and then probed
    once each with a checked message. A second round narrows the answer. Another connection is in
    use all the time: if it is lost as well, idleness is not the reason.

    Exit codes: 0 an answer was found, 1 the target could not be reached or failed for another
    reason, 2 usage error, 99 connections were not kept for --at-least, 130 interrupted; then what
    is known so far is reported.
    """
    with program.needs_extra("load"):
        from echo_load.limits.idle import find_idle
        from echo_load.limits.idle_plan import IdlePlan
        from echo_load.plan.plan import Plan
    fields, reporting = options.split_options(others)
    with errors_name_flags():
        plan = Plan(targets=(str(target),), **fields)
        idle_plan = IdlePlan(plan=plan, up_to=up_to, precision=precision, at_least=at_least)

    def run(observer: Observer) -> Result:
        return find_idle(idle_plan, observer=observer, handle_signals=True)

    description = idle_plan.unanswered.description
    return options.report_on("idle", run, plan, reporting, description=description)
