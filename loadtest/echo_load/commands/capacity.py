"""`echo-load capacity`: find the highest rate, or the most connections, that keep an SLO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from echo_core.command_line import option_types, program, settings
from echo_core.command_line.arguments import Example, refuse_unused
from echo_core.command_line.option_groups import heading
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode, InvalidValueError
from echo_core.units import parse_percentage
from echo_load.commands import options
from echo_load.commands.reporting_command import ReportingCommand
from echo_load.flags import errors_name_flags
from echo_load.plan.bandwidth import Bandwidth, mean_size, parse_load
from echo_load.plan.bounds import MOST_PIPELINED, MOST_REPEATS

if TYPE_CHECKING:
    from echo_load.results.result import Result
    from echo_load.runner.observer import Observer


# A rate, which may be a bandwidth, or a number of connections.
_LEVEL = option_types.Parsed("rate", parse_load)


def _precision(text: str) -> float:
    share = parse_percentage(text)
    if not 0.001 <= share <= 0.5:
        raise InvalidValueError(f"{text!r} is not a precision from 0.1% to 50%")
    return share


_EXAMPLES = (
    Example(
        "The highest rate at which 99 % of the replies arrive within 5 ms",
        'echo-load capacity --slo "p99<5ms" 10.0.0.7:50007',
    ),
    Example(
        "The number of connections that can be held",
        "echo-load capacity --connections-limit 10.0.0.7:50007",
    ),
    Example(
        "In continuous integration: exit code 99 if 20,000 per second are too many",
        'echo-load capacity --slo "p99<5ms" --at-least 20k 10.0.0.7:50007',
    ),
)


@click.command(
    cls=ReportingCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Find the highest rate, or the most connections, that keep an SLO.",
    examples=_EXAMPLES,
)
@options.optional_targets
@heading("Goal")
@click.option(
    "--slo",
    type=option_types.Parsed("limit", options.checked_threshold),
    metavar="LIMIT",
    multiple=True,
    help='Condition to keep, as for --threshold: "p99<5ms", "errors==0". Without one on errors or '
    "loss, no error is tolerated. Repeatable.  [default: p99<10ms; no error with "
    "--connections-limit]",
)
@click.option(
    "--connections-limit",
    is_flag=True,
    help="Find the number of connections that can be held, instead of the rate.",
)
@click.option(
    "--cycle",
    type=option_types.POSITIVE_DURATION,
    default="5s",
    help="With --connections-limit: interval at which each connection is probed.",
)
@click.option(
    "--at-least",
    type=_LEVEL,
    help="Rate (as for `echo-load run --rate`, also in bytes), or number of connections, that must "
    "be reached, or the exit code is 99. It is tried itself unless more is kept.",
)
@heading("Search")
@click.option(
    "--precision",
    type=option_types.Parsed("percentage", _precision),
    default="5%",
    help="Largest distance between the answer and a rate that failed.",
)
@click.option(
    "--start",
    type=_LEVEL,
    help="Rate, or number of connections, to begin with.  [default: 1k; 100 connections]",
)
@click.option(
    "--lowest",
    type=_LEVEL,
    help="Lowest rate, or number of connections, to try.  [default: 10; 1 connection]",
)
@click.option("--highest", type=_LEVEL, help="Highest rate, or number of connections, to try.")
@click.option(
    "-d",
    "--duration",
    type=option_types.POSITIVE_DURATION,
    help="Duration of each step.  [default: as long as the SLO's percentiles need, 4s to 30s; two "
    "cycles]",
)
@click.option(
    "--warmup",
    type=option_types.DURATION,
    default="1s",
    help="Time to send before each step, at its rate; not included in any figure.",
)
@click.option(
    "--repeat",
    type=option_types.whole_number("count", 1, MOST_REPEATS),
    default="3",
    help="Number of repeats of the step that confirms the answer.",
)
@heading("Load")
@click.option(
    "--arrivals",
    type=click.Choice(["constant", "poisson"]),
    default="constant",
    help="Send messages at constant or at random (Poisson) intervals.",
)
@click.option(
    "-c", "--connections", type=options.CONNECTIONS, default="100", help="Number of connections."
)
@click.option(
    "--pipeline",
    type=option_types.whole_number("count", 1, MOST_PIPELINED),
    default="1",
    help="Number of messages in flight on each connection.",
)
@options.payload_size_option
@options.processes_option
@options.timeout_options
@options.connecting_options
@options.result_options
@options.report_options
@options.prometheus_option
@settings.config_option
@click.pass_context
def capacity(
    context: click.Context,
    /,
    targets: tuple[Endpoint, ...],
    slo: tuple[str, ...],
    connections_limit: bool,
    cycle: float,
    precision: float,
    duration: float | None,
    repeat: int,
    start: float | Bandwidth | None,
    lowest: float | Bandwidth | None,
    highest: float | Bandwidth | None,
    at_least: float | Bandwidth | None,
    **others: Any,
) -> ExitCode:
    """Find the highest rate that keeps an SLO, each message sent on schedule (open loop).

    The rate is doubled until the SLO is not kept, narrowed, and confirmed with repeats. If the
    generator was the limit, not the target, the answer is "at least", with advice. Without a
    target, an echo-server is started for each step.

    Exit codes: 0 found, 1 failed, or the generator was the limit at every rate, or before
    --at-least was reached, 2 usage error, 3 the echo-server did not start, 99 the SLO was not kept
    at any rate, or --at-least was not reached, 130 interrupted.
    """
    with program.needs_extra("load"):
        from echo_load.limits.capacity import find_capacity
        from echo_load.limits.capacity_plan import CapacityPlan
        from echo_load.plan.plan import Plan
        from echo_load.report.capacity import CapacityReport
    if connections_limit:
        refuse_unused(
            context,
            ("connections", "warmup", "arrivals"),
            "has no effect with --connections-limit; omit it",
            because="connections_limit",
        )
        others |= {"warmup": 0.0}
    else:
        refuse_unused(context, ("cycle",), "needs --connections-limit", because="slo")
    size = mean_size(payload_size=others["payload_size"])
    levels = {"start": start, "lowest": lowest, "highest": highest, "at_least": at_least}
    by_bytes = any(isinstance(level, Bandwidth) for level in levels.values())
    if by_bytes and connections_limit:
        raise click.UsageError(
            "--connections-limit finds a number of connections, which is not given in bytes per "
            "second; give a number, as in --at-least 10k"
        )
    in_messages = {
        name: level.bytes_per_second / size if isinstance(level, Bandwidth) else level
        for name, level in levels.items()
    }
    fields, reporting = options.split_options({**others, "threshold": slo})
    with errors_name_flags():
        plan = Plan(
            targets=tuple(map(str, targets)),
            # Replaced by that of each step.
            rate=in_messages["start"] or 1.0,
            bytes_per_message=size if by_bytes else None,
            **fields,
        )
        capacity_plan = CapacityPlan(
            plan=plan,
            precision=precision,
            cycle=cycle if connections_limit else None,
            duration=duration,
            repeat=repeat,
            **in_messages,
        )
    screen = CapacityReport()

    def run(observer: Observer) -> Result:
        return find_capacity(
            capacity_plan,
            observer=observer,
            on_step=None if reporting.quiet else screen.tried,
            reconcile=reporting.reconcile,
            handle_signals=True,
        )

    return options.report_on("capacity", run, plan, reporting, screen=screen)
