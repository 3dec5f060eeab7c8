"""`echo-client`: a prompt on a terminal, a pipe elsewhere."""

from __future__ import annotations

import os
import sys
from functools import partial

import click

from echo_client.errors import StreamError
from echo_core import command
from echo_core.endpoint import DEFAULT_PORT, Endpoint, NetworkEndpoint


@click.command(context_settings=command.command_settings("ECHO_CLIENT"))
@click.argument("target", type=command.TARGET, required=False, metavar="[HOST:PORT]")
@click.option("--host", type=command.HOST, default="localhost", help="The host to connect to.")
@click.option(
    "--port", type=command.TARGET_PORT, default=DEFAULT_PORT, help="The port to connect to."
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
    help="What connecting may take.",
)
@command.config_option
@command.version_option
@click.pass_context
def echo_client(
    context: click.Context,
    target: Endpoint | None,
    host: str,
    port: int,
    timeout: float,
    connect_timeout: float,
) -> None:
    """Talk to an echo service at HOST:PORT, tcp://HOST:PORT or unix:///PATH.

    On a terminal it is a prompt: type a line, see the reply and its round trip in microseconds.
    Elsewhere it is a pipe: what comes on standard input is sent, what comes back goes to standard
    output, both at the same time, and every byte is checked.

    Every option can be set in the environment: ECHO_CLIENT_PORT=50007.

    Exit codes: 0 all came back, 1 the service failed, 2 usage, 130 interrupted.
    """
    if target is not None:
        for name in ("host", "port"):
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} and {target} both say where to connect to")
    endpoint = target or NetworkEndpoint(host, port)
    if sys.stdin.isatty() and sys.stdout.isatty():
        from echo_client.repl import Repl

        Repl(endpoint, timeout=timeout, connect_timeout=connect_timeout).run()
    else:
        _pipe(endpoint, timeout, connect_timeout)


def _pipe(endpoint: Endpoint, timeout: float, connect_timeout: float) -> None:
    from echo_client.connection import EchoConnection
    from echo_client.pipe import stream

    with EchoConnection.open(
        endpoint, timeout=timeout, connect_timeout=connect_timeout
    ) as connection:
        # os.read, not sys.stdin: the sending thread may still wait in it when the process ends.
        stream(connection, partial(os.read, sys.stdin.fileno()), _write_out)


def _write_out(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StreamError(f"cannot write the output: {error.strerror}") from error
