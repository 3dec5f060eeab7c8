"""The command `echo-client`: a ping, or else a prompt on a terminal and a pipe elsewhere."""

from __future__ import annotations

import ipaddress
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import click

from echo_client.errors import StreamError
from echo_client.ip_options import ip_options, ip_version
from echo_client.opening_options import PROXY_OPTIONS, SOCKET_OPTIONS, opening_options
from echo_client.ping_options import ping_options
from echo_client.proxy_header import ProxyHeaders
from echo_client.socket_options import BufferSizes, SocketOptions
from echo_client.tls_options import tls_options
from echo_core.command_line import option_types, program, settings
from echo_core.command_line.arguments import Command, Example, outranks, refuse_unused
from echo_core.command_line.option_groups import heading
from echo_core.command_line.target_argument import targets_argument
from echo_core.endpoint import DEFAULT_PORT, Endpoint, NetworkEndpoint
from echo_core.errors import ExitCode, InvalidValueError

if TYPE_CHECKING:
    from echo_client.connection import EchoConnection
    from echo_core.proxy_protocol import Version

_EXAMPLES = (
    Example("A prompt that shows the round trip of each line", "echo-client 10.0.0.7:50007"),
    Example("A ping over UDP", "echo-client -n 10 -i 1s udp://10.0.0.7:50007"),
    Example("A pipe that checks every byte", "echo-client 10.0.0.7:50007 < big.bin > copy.bin"),
)


def _ip_address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidValueError(f"{text!r} is not an IP address") from error
    return text


@click.command(
    cls=Command,
    context_settings=settings.command_settings("ECHO_CLIENT"),
    examples=_EXAMPLES,
)
@targets_argument(
    nargs=1,
    required=False,
    metavar="[TARGET]",
    setting="target",
    meaning="Without one, --host and --port name it.",
)
@heading("Target")
@click.option("--host", type=option_types.HOST, default="localhost", help="Host to connect to.")
@click.option(
    "--port", type=option_types.TARGET_PORT, default=DEFAULT_PORT, help="Port to connect to."
)
@ip_options
@heading("Connections")
@click.option(
    "--source-ip",
    type=option_types.Parsed("ip", _ip_address),
    metavar="IP",
    help="Local address to connect from.",
)
@tls_options
@heading("Connections")
@opening_options
@click.option(
    "--timeout",
    type=option_types.POSITIVE_DURATION,
    default="10s",
    help="Maximum time to wait for a reply.",
)
@click.option(
    "--connect-timeout",
    type=option_types.POSITIVE_DURATION,
    default="5s",
    help="Maximum time to open a connection, including the TLS handshake.",
)
@heading("Pipe")
@click.option(
    "--datagrams",
    type=click.Choice(["lines", "input"]),
    default="lines",
    help="Unit that a pipe sends as one datagram over UDP: each line, or the whole input.",
)
@ping_options
@settings.config_option
@program.version_option
@click.pass_context
def echo_client(
    context: click.Context,
    /,
    target: Endpoint | None,
    host: str,
    port: int,
    ipv4: bool,
    ipv6: bool,
    source_ip: str | None,
    timeout: float,
    connect_timeout: float,
    datagrams: str,
    messages: int | None,
    interval: float,
    payload_size: int,
    send_proxy: Version | None,
    send_proxy_source: str | None,
    **others: Any,
) -> ExitCode:
    """Talk to an echo service over TCP, TLS, UDP or a unix socket.

    On a terminal it is a prompt: type a line to see the reply and its round trip. Otherwise it is a
    pipe: it sends standard input, writes what comes back to standard output at the same time, and
    checks every byte. Over UDP, each line of the input is a datagram.

    With -n it is a ping: it sends messages at an interval, and prints the round trip of each and a
    summary.

    Every option can also be set in the environment, and so can the target:
    ECHO_CLIENT_TARGET=10.0.0.7:50007.

    Exit codes: 0 everything came back, 1 the service failed, 2 usage error, 130 interrupted.
    """
    if target is not None and outranks(context, ("host", "port"), "target"):
        target = None
    elif target is not None:
        refuse_unused(
            context,
            ("host", "port"),
            f"cannot be combined with the target {target}",
            because="target",
        )
    endpoint = target or NetworkEndpoint(host, port)
    prompted = messages is None and sys.stdin.isatty() and sys.stdout.isatty()
    _refuse_for_mode(context, endpoint, pings=messages is not None, prompted=prompted)
    chosen = _ip_version_of(context, endpoint, ip_version(ipv4=ipv4, ipv6=ipv6))
    socket_options = SocketOptions(**{name: others.pop(name) for name in SOCKET_OPTIONS})
    if endpoint.scheme != "tls":
        refuse_unused(context, others, f"applies only to tls:// targets, not to {endpoint}")
    _refuse_for_transport(context, endpoint, sends_proxy=send_proxy is not None)

    from echo_client.connection import EchoConnection
    from echo_client.tls import TlsOptions

    tls = TlsOptions(**{name.removeprefix("tls_"): value for name, value in others.items()})
    headers = ProxyHeaders.of(send_proxy, send_proxy_source)
    numbers = count(1)
    _report_buffers(socket_options.buffer_size)

    def connect() -> EchoConnection:
        return EchoConnection.open(
            endpoint,
            timeout=timeout,
            connect_timeout=connect_timeout,
            tls=tls,
            source=source_ip,
            ip_version=chosen,
            options=socket_options,
            header=headers.header(next(numbers)) if headers is not None else None,
        )

    if messages is not None:
        from echo_client.ping import Ping

        return Ping(
            endpoint,
            connect,
            messages=messages,
            interval=interval,
            timeout=timeout,
            payload_size=payload_size,
        ).run()
    if prompted:
        from echo_client.repl import Repl

        if endpoint.scheme == "tls":
            # The prompt continues after errors; invalid TLS options must end it before it starts.
            tls.context()
        Repl(endpoint, connect).run()
    elif endpoint.scheme == "udp":
        _datagram_pipe(connect, datagrams, timeout)
    else:
        _pipe(connect)
    return ExitCode.OK


def _refuse_for_mode(
    context: click.Context, endpoint: Endpoint, *, pings: bool, prompted: bool
) -> None:
    """Refuse the options of a ping, a prompt or a pipe that is none."""
    if not pings:
        refuse_unused(context, ("interval", "payload_size"), "has no effect without -n; add -n 10")
    elif _is_pipe(sys.stdin.fileno()) and sys.stdout.isatty():
        # Only there was the pipe typed by hand; scripts and services often inherit one.
        raise click.UsageError(
            "-n sends messages of its own, not standard input, which is a pipe; omit -n to send "
            "the input, or add < /dev/null"
        )
    if endpoint.scheme != "udp":
        refuse_unused(context, ("datagrams",), f"applies only to udp:// targets, not to {endpoint}")
    elif prompted or pings:
        mode = "prompt" if prompted else "ping (-n)"
        refuse_unused(context, ("datagrams",), f"applies only to a pipe, and this is a {mode}")


def _refuse_for_transport(context: click.Context, endpoint: Endpoint, *, sends_proxy: bool) -> None:
    """Refuse the options of sockets and PROXY headers that the transport does not have."""
    if not sends_proxy:
        refuse_unused(context, ("send_proxy_source",), "has no effect without --send-proxy v1|v2")
    if endpoint.scheme == "udp":
        refuse_unused(context, PROXY_OPTIONS, f"needs a stream, and {endpoint} is none")
    if endpoint.scheme == "unix":
        refuse_unused(
            context,
            ("send_proxy_source", "dscp"),
            f"applies only to IP targets, not to {endpoint}",
        )
    if endpoint.scheme not in {"tcp", "tls"}:
        refuse_unused(context, ("nodelay", "keepalive"), f"needs TCP, which {endpoint} is not")


def _report_buffers(requested: int | None) -> None:
    """Print a line on standard error if the kernel gives smaller buffers than requested."""
    sizes = BufferSizes.granted(requested)
    if sizes is not None and sizes.shortfall:
        click.echo(sizes.shortfall, err=True)


def _ip_version_of(
    context: click.Context, endpoint: Endpoint, chosen: Literal[4, 6] | None
) -> Literal[4, 6] | None:
    """Return the chosen IP version, if the endpoint can have it."""
    if endpoint.scheme == "unix":
        refuse_unused(
            context, ("ipv4", "ipv6", "source_ip"), f"applies only to IP targets, not to {endpoint}"
        )
    version = endpoint.ip_version if isinstance(endpoint, NetworkEndpoint) else None
    if version and chosen not in {version, None}:
        raise click.UsageError(f"{endpoint} is an IPv{version} address; omit -4 and -6")
    return chosen


def _is_pipe(descriptor: int) -> bool:
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


def _input() -> Callable[[int], bytes]:
    # Not sys.stdin, whose lock the sending thread could still hold at exit.
    return partial(os.read, sys.stdin.fileno())


def _pipe(connect: Callable[[], EchoConnection]) -> None:
    from echo_client.pipe import stream

    with connect() as connection:
        stream(connection, _input(), _write_output)


def _datagram_pipe(connect: Callable[[], EchoConnection], division: str, timeout: float) -> None:
    from echo_client.datagram_pipe import DIVISIONS, exchange

    with connect() as connection:
        exchange(connection, DIVISIONS[division](_input()), timeout, _write_output)


def _write_output(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StreamError(f"cannot write the output: {error.strerror}") from error
