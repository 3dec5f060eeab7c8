"""The options of the commands that say what a connection is opened with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from echo_client.proxy_header import ClientAddresses
from echo_client.socket_options import LARGEST_BUFFER, check_keepalive, parse_dscp
from echo_core.command_line import option_types
from echo_core.errors import InvalidValueError
from echo_core.units import format_bytes, parse_size

# The parameters of the options, which are named like the fields of a plan.
PROXY_OPTIONS = ("send_proxy", "send_proxy_source")
SOCKET_OPTIONS = ("dscp", "nodelay", "keepalive", "buffer_size")


def proxy_source(text: str) -> str:
    """Return the text of pretended client addresses unchanged, after a check.

    Raises:
        InvalidValueError: it is neither an address nor a network.
    """
    ClientAddresses.parse(text)
    return text


def _keepalive(text: str) -> float:
    seconds: float = option_types.DURATION.parse(text)
    check_keepalive(seconds, repr(text))
    return seconds


def _buffer_size(text: str) -> int:
    size = parse_size(text)
    if not 1 <= size <= LARGEST_BUFFER:
        raise InvalidValueError(
            f"{text!r} is not a size from 1 B to {format_bytes(LARGEST_BUFFER)}"
        )
    return size


def opening_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, as parameters `PROXY_OPTIONS` and `SOCKET_OPTIONS`."""
    options = (
        click.option(
            "--send-proxy",
            type=click.Choice(["v1", "v2"]),
            help="Begin each connection with a PROXY protocol header of this version, as a proxy "
            "does; not over UDP.",
        ),
        click.option(
            "--send-proxy-source",
            type=option_types.Parsed("address", proxy_source),
            metavar="ADDRESS[:PORT]|NETWORK",
            help="Client address in the header; the connections have the addresses of a network "
            "such as 10.0.0.0/8 in turn.  [default: the connection's own address]",
        ),
        click.option(
            "--dscp",
            type=option_types.Parsed("dscp", parse_dscp),
            help="DSCP of the packets: 0 to 63, EF, AF11 to AF43, or CS0 to CS7.",
        ),
        click.option(
            "--nodelay/--no-nodelay",
            default=True,
            help="Send small TCP segments at once, or with Nagle's algorithm.",
        ),
        click.option(
            "--keepalive",
            type=option_types.Parsed("duration", _keepalive),
            help="Send TCP keep-alives at this interval, in whole seconds.",
        ),
        click.option(
            "--buffer-size",
            type=option_types.Parsed("size", _buffer_size),
            help="Size of the send buffer and of the receive buffer of each socket.  [default: "
            "the system's, which adapts]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function
