"""`echo-server`: options to a configuration to a serving process.

Nothing here imports gevent or the standard library's networking: what is imported before
monkey-patching keeps its unpatched parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from echo_core import command
from echo_core.endpoint import DEFAULT_PORT, Endpoint
from echo_core.errors import ExitCode
from echo_server.config import ServerConfig

if TYPE_CHECKING:
    from echo_core.logs import Format, Level


@click.command(context_settings=command.command_settings("ECHO_SERVER"))
@click.option(
    "--host", type=command.HOST, default="127.0.0.1", help="Name or address to listen on."
)
@click.option("--port", type=command.PORT, default=DEFAULT_PORT, help="0 is any free port.")
@click.option(
    "--backlog",
    type=command.whole_number("count", 1, 2**31 - 1),
    default=4096,
    help="Connections that may wait to be accepted.",
)
@click.option(
    "--drain-timeout",
    type=command.DURATION,
    default="10s",
    help="What open connections get to finish after SIGTERM or SIGINT.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    help="auto: console on a terminal, JSON lines elsewhere.",
)
@command.config_option
@command.version_option
def echo_server(
    host: str,
    port: int,
    backlog: int,
    drain_timeout: float,
    log_level: Level,
    log_format: Format,
) -> ExitCode:
    """Echo every byte of many connections at once, in one thread.

    Prints `listening tcp://HOST:PORT` on standard output once it can be connected to; logs go to
    standard error. SIGTERM or Ctrl-C drains: no new connection is accepted, open ones may finish.
    A second one ends the server at once.

    Every option can be set in the environment: ECHO_SERVER_PORT=50007.

    Exit codes: 0 drained, 2 usage, 3 could not listen, 130 ended by a second signal.
    """
    config = ServerConfig(
        endpoint=Endpoint(host, port),
        backlog=backlog,
        drain_timeout=drain_timeout,
        log_level=log_level,
        log_format=log_format,
    )
    from gevent import monkey

    monkey.patch_all()
    from echo_server.worker import serve

    return serve(config)
