"""`echo-load run`: load an echo service, check the replies, and measure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import click

from echo_core.command_line import option_types, program, settings
from echo_core.command_line.arguments import Example, refuse_unused
from echo_core.command_line.option_groups import heading
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode, InvalidValueError
from echo_load.commands import options
from echo_load.commands.reporting_command import ReportingCommand
from echo_load.flags import errors_name_flags
from echo_load.plan.bandwidth import Bandwidth, is_bandwidth, mean_size, parse_load
from echo_load.plan.bounds import MOST_PIPELINED

# The value of --rate without a number: the stages are rates.
_STAGED = "staged"
# Matches an argument that is not a value: an empty one, or another option, but not -5.
_NOT_A_VALUE = re.compile(r"$|-\D")


def _rate(text: str) -> float | Bandwidth | str:
    return _STAGED if text == _STAGED else parse_load(text)


class _RunCommand(ReportingCommand):
    """A command whose option --rate needs no number.

    With click's own optional values, `--rate -5` would be --rate without a number.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, list(_with_rate(args)))


def _with_rate(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, with a value after each --rate that has none."""
    for argument, following in pairwise([*arguments, ""]):
        yield argument
        if argument in {"-r", "--rate"} and _NOT_A_VALUE.match(following):
            yield _STAGED


_EXAMPLES = (
    Example(
        "A closed loop of 1000 connections, for half a minute",
        "echo-load run -c 1000 -d 30s 10.0.0.7:50007",
    ),
    Example(
        "10,000 messages per second; exit code 99 if the p99 is not below 5 ms",
        'echo-load run -r 10k -d 30s --threshold "p99<5ms" 10.0.0.7:50007',
    ),
    Example(
        "A rate that rises to 20,000 per second, and a report with charts",
        'echo-load run -r --stages "0-20k/1m" --html report.html 10.0.0.7:50007',
    ),
    Example(
        "A new TLS connection for every ten messages",
        "echo-load run --churn 10 --tls-ca ca.pem tls://10.0.0.7:50008",
    ),
)


@click.command(
    cls=_RunCommand,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Load-test echo services and check every byte.",
    examples=_EXAMPLES,
)
@options.optional_targets
@heading("Load")
@click.option(
    "-c", "--connections", type=options.CONNECTIONS, default="100", help="Number of connections."
)
@click.option(
    "-d",
    "--duration",
    type=option_types.POSITIVE_DURATION,
    help="Duration of the test.  [default: 10s, or until --messages or --stages end]",
)
@click.option(
    "-n", "--messages", type=options.MESSAGES, help="Maximum number of messages to send in all."
)
@click.option(
    "-r",
    "--rate",
    type=option_types.Parsed("rate", _rate),
    metavar="[RATE]",
    help="Total messages per second, sent on schedule and measured from when they are due (open "
    "loop), or their payload in each direction, as in 100MB/s or 800Mbit/s. Without it, each "
    "connection sends its next message when the last reply has arrived (closed loop). With "
    "--stages, the stages are rates, and the number is needed only as the rate of --warmup.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["constant", "poisson"]),
    default="constant",
    help="With --rate: send messages at constant or at random (Poisson) intervals.",
)
@click.option(
    "--pipeline",
    type=option_types.whole_number("count", 1, MOST_PIPELINED),
    default="1",
    help="Number of messages in flight on each connection.",
)
@heading("Shape")
@click.option(
    "--stages",
    metavar="LEVELS/TIME,...",
    help='Number of connections over time, such as "0-100/10s,100/30s,100-1000/30s"; with '
    '--rate, messages per second over time, or their payload, as in "0-100MB/10s".',
)
@click.option("--loop", is_flag=True, help="Repeat --stages until --duration has passed.")
@click.option(
    "--warmup",
    type=option_types.DURATION,
    default="0s",
    help="Time to send before the test, at its first level and on separate connections; not "
    "included in any figure.",
)
@options.payload_size_option
@heading("Payload")
@click.option(
    "--payload-file",
    type=option_types.File(),
    metavar="FILE",
    help="Send the contents of this file as each message.",
)
@click.option("--message", metavar="TEXT", help="Send this text as each message.")
@heading("Connections")
@click.option(
    "--churn",
    type=options.MESSAGES,
    help="Replace each connection with a new one after this many messages.",
)
@click.option(
    "--reconnect/--no-reconnect",
    default=True,
    help="Reopen lost connections.",
)
@heading("Generator")
@click.option(
    "--engine",
    type=click.Choice(["hub", "greenlets", "threads"]),
    help="Engine that drives the connections: gevent's hub (fastest), a greenlet per connection, "
    "or a thread per connection.  [default: hub]",
)
@options.processes_option
@options.timeout_options
@options.connecting_options
@options.test_options
@settings.config_option
@click.pass_context
def run(
    context: click.Context,
    /,
    targets: tuple[Endpoint, ...],
    rate: float | Bandwidth | str | None,
    stages: str | None,
    **others: Any,
) -> ExitCode:
    """Load-test echo services: compare every byte that comes back, and measure.

    Every message identifies itself, so that a wrong reply can be classified as corrupt, truncated,
    duplicated, reordered or foreign.

    Exit codes: 0 passed, 1 failed, 2 usage error, 3 the echo-server did not start, 99 a threshold
    was crossed, 130 interrupted.
    """
    with program.needs_extra("load"):
        from echo_load.plan.plan import Plan
        from echo_load.plan.stages import parse_stages
    staged_rate = stages is not None and rate is not None
    size = None
    if isinstance(rate, Bandwidth) or (staged_rate and is_bandwidth(stages or "")):
        with errors_name_flags():
            size = mean_size(
                payload_size=others["payload_size"],
                payload_file=others["payload_file"],
                message=others["message"],
            )
    try:
        parsed = (
            parse_stages(stages, rates=staged_rate, bytes_per_message=size)
            if stages is not None
            else ()
        )
    except InvalidValueError as error:
        context = click.get_current_context()
        (option,) = (one for one in context.command.params if one.name == "stages")
        raise click.BadParameter(str(error), context, option) from error
    if isinstance(rate, Bandwidth) and size is not None:
        rate = rate.bytes_per_second / size
    if rate == _STAGED and stages is None:
        raise click.UsageError("--rate needs a number, as in --rate 10k, or --stages")
    if stages is not None and rate is None:
        refuse_unused(
            context,
            ("connections",),
            "and --stages both give the number of connections; omit one, or add --rate so that "
            "the stages are rates",
            because="stages",
        )
    for content in ("message", "payload_file"):
        if others[content] is not None:
            refuse_unused(
                context,
                ("payload_size",),
                f"and --{content.replace('_', '-')} both give the size of messages; give one",
                because=content,
            )
    fields, reporting = options.split_options(others)
    with errors_name_flags():
        plan = Plan(
            targets=tuple(map(str, targets)),
            rate=rate if isinstance(rate, float) else None,
            bytes_per_message=size,
            stages=parsed,
            staged_rate=staged_rate,
            **fields,
        )
    return options.run_and_report("run", plan, reporting)
