"""`echo-load watch`: find the outages of a rollout or a failover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from echo_core.command_line import option_types, program, settings
from echo_core.command_line.arguments import Example
from echo_core.command_line.option_groups import heading
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode
from echo_load.commands import options
from echo_load.commands.reporting_command import ReportingCommand
from echo_load.flags import errors_name_flags
from echo_load.plan.bounds import MOST_WATCHED

if TYPE_CHECKING:
    from echo_load.results.result import Result
    from echo_load.runner.observer import Observer


_EXAMPLES = (
    Example(
        "Until Ctrl-C; exit code 99 if the target was unavailable for more than two seconds",
        "echo-load watch --outage-budget 2s 10.0.0.7:50007",
    ),
    Example(
        "Two services for a minute, probed every 10 ms, with a report",
        "echo-load watch -d 1m --interval 10ms --html watch.html 10.0.0.7 10.0.0.8",
    ),
)


@click.command(
    cls=ReportingCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Watch services for outages, during a rollout or a failover.",
    examples=_EXAMPLES,
)
@options.optional_targets
@heading("Load")
@click.option(
    "-c",
    "--connections",
    type=option_types.whole_number("count", 1, MOST_WATCHED),
    default="10",
    help="Number of connections to keep open, over all targets.",
)
@click.option(
    "-d",
    "--duration",
    type=option_types.POSITIVE_DURATION,
    help="Time to watch.  [default: until stopped by Ctrl-C]",
)
@click.option(
    "--interval",
    type=option_types.POSITIVE_DURATION,
    default="50ms",
    help="Interval at which each target is probed on a kept connection, each in turn, and as often "
    "on a new one.",
)
@heading("Connections")
@click.option(
    "--timeout",
    type=option_types.POSITIVE_DURATION,
    default="1s",
    help="Maximum time to wait for a connection or a reply; the shortest silence that counts as "
    "an outage.",
)
@heading("Verdict")
@click.option(
    "--outage-budget",
    type=option_types.DURATION,
    help="Longest total time that any target may be unavailable, or the exit code is 99.",
)
@options.payload_size_option
@options.single_source_options
@options.json_options
@options.report_options
@options.prometheus_option
@settings.config_option
def watch(
    targets: tuple[Endpoint, ...],
    interval: float,
    outage_budget: float | None,
    **others: Any,
) -> ExitCode:
    """Watch services for outages: when, how long, of what kind, on how many connections.

    Connections are kept open and probed with checked messages, and replaced when they are lost; new
    ones are opened all the time. A connection that the server closes in order, and that can be
    replaced at once, is no outage.

    Without --duration, Ctrl-C or SIGTERM ends the watch, and the exit code is 0 or 99 as at any
    other end.

    Exit codes: 0 watched, 1 a target could not be reached at the beginning, 2 usage error, 3 the
    echo-server did not start, 99 the outages exceeded --outage-budget, 130 interrupted before
    --duration was over.
    """
    with program.needs_extra("load"):
        from echo_load.limits.watch import WatchPlan
        from echo_load.limits.watch import watch as watch_targets
        from echo_load.plan.plan import Plan
    fields, reporting = options.split_options(others)
    with errors_name_flags():
        plan = Plan(targets=tuple(map(str, targets)), connect_timeout=others["timeout"], **fields)
        watch_plan = WatchPlan(plan=plan, interval=interval, outage_budget=outage_budget)

    def run(observer: Observer) -> Result:
        return watch_targets(watch_plan, observer=observer, handle_signals=True)

    return options.report_on("watch", run, plan, reporting)
