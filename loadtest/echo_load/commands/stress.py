"""`echo-load stress`: the tutorial's 100 and 1000 connections, checked and measured."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from echo_core import command
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode

if TYPE_CHECKING:
    from echo_load.plan import Plan


@click.command(context_settings=command.command_settings("ECHO_LOAD"))
@click.argument("target", type=command.TARGET, required=False, metavar="[TARGET]")
@click.option(
    "-c",
    "--connections",
    type=command.whole_number("count", 1, 1_000_000),
    multiple=True,
    default=["100", "1000"],
    help="Connections of a stage; give it again for another stage.",
)
@click.option(
    "-d",
    "--duration",
    type=command.POSITIVE_DURATION,
    default="5s",
    help="How long a stage sends.",
)
@click.option(
    "--processes",
    type=command.whole_number("count", 1, 1024),
    help="Generators that share the connections.  [default: half of the cores, or what the "
    "descriptors demand]",
)
@click.option(
    "--timeout",
    type=command.POSITIVE_DURATION,
    default="10s",
    help="What a reply may take.",
)
@click.option(
    "--connect-timeout",
    type=command.POSITIVE_DURATION,
    default="5s",
    help="What opening a connection may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result as JSON to a file as well.",
)
@command.config_option
def stress(
    target: Endpoint | None,
    connections: tuple[int, ...],
    duration: float,
    processes: int | None,
    timeout: float,
    connect_timeout: float,
    as_json: bool,
    output: Path | None,
) -> ExitCode:
    """Stress an echo service with a thread and a blocking socket a connection.

    TARGET is HOST:PORT, tcp://HOST:PORT or unix:///PATH; without one, an echo-server is started,
    tested and
    stopped. All connections of a stage are opened first and then released together; each sends
    `hello 0`, `hello 1` and on, the next when the reply to the last is in, and every reply is
    compared byte for byte.

    Exit codes: 0 passed, 1 failed, 2 usage, 3 the echo-server did not start, 130 interrupted.
    """
    with command.needs_extra("load"):
        from echo_core.limits import raise_descriptor_limit
        from echo_load.plan import Plan, StagePlan, processes_for
    limit = raise_descriptor_limit()
    plan = Plan(
        stages=tuple(StagePlan(connections=count, duration=duration) for count in connections),
        processes=processes or processes_for(max(connections), limit),
        timeout=timeout,
        connect_timeout=connect_timeout,
    )
    return _run(plan, target, as_json=as_json, output=output)


def _run(plan: Plan, target: Endpoint | None, *, as_json: bool, output: Path | None) -> ExitCode:
    with command.needs_extra("load"):
        from echo_load import controller
        from echo_load.local_server import LocalServer
        from echo_load.report.console import ConsoleReport
        from echo_load.report.files import check_writable, write
    if output is not None:
        check_writable(output)
    with ExitStack() as stack:
        server = stack.enter_context(LocalServer()) if target is None else None
        endpoint = server.endpoint if server is not None else target
        assert endpoint is not None
        interruption = controller.Interruption()
        stack.enter_context(
            interruption.by_signals(server.kill if server is not None else lambda: None)
        )
        report = ConsoleReport(plan, str(endpoint), quiet=as_json)
        stack.callback(report.close)
        result = controller.run(
            plan,
            endpoint,
            command="stress",
            interruption=interruption,
            on_progress=report.progress,
            on_stage=report.stage,
            failure=server.failure if server is not None else lambda: None,
        )
    report.verdict(result)
    if as_json:
        click.echo(result.to_json(), nl=False)
    if output is not None:
        write(output, result.to_json())
    if result.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if result.passed else ExitCode.FAILED
