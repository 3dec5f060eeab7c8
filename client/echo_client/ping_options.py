"""The options of the ping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from echo_core.command_line import option_types
from echo_core.command_line.option_groups import group
from echo_core.errors import InvalidValueError
from echo_core.limits import LARGEST_DATAGRAM
from echo_core.units import parse_size

_MOST_MESSAGES = 1_000_000
# More often than a millisecond, the client itself would be measured.
_SHORTEST_SECONDS = 1e-3
# A message has to hold its number and as many random bytes.
_SMALLEST, _LARGEST = 16, LARGEST_DATAGRAM[4]


def _interval(text: str) -> float:
    seconds: float = option_types.DURATION.parse(text)
    if seconds < _SHORTEST_SECONDS:
        raise InvalidValueError(
            f"{text!r} is not an interval of 1ms or more; `echo-load run --rate` sends more often"
        )
    return seconds


def _size(text: str) -> int:
    size = parse_size(text)
    if not _SMALLEST <= size <= _LARGEST:
        raise InvalidValueError(f"{text!r} is not a size from {_SMALLEST} to {_LARGEST} bytes")
    return size


def ping_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the ping, as parameters `messages`, `interval` and `payload_size`."""
    options = (
        click.option(
            "-n",
            "--messages",
            type=option_types.whole_number("count", 1, _MOST_MESSAGES),
            help="Send this many messages, and print the round trip of each and a summary, as "
            "ping does.",
        ),
        click.option(
            "-i",
            "--interval",
            type=option_types.Parsed("duration", _interval),
            default="1s",
            help="Interval between the messages of -n.",
        ),
        click.option(
            "--payload-size",
            type=option_types.Parsed("size", _size),
            default="64",
            help="Size of the messages of -n.",
        ),
    )
    return group("Ping", *options)(function)
