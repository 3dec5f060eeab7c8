"""The options -4 and -6 of the commands that open connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import click

from echo_core.command_line.option_groups import group


def ip_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options -4 and -6, as parameters `ipv4` and `ipv6`."""
    return group(
        "Connections",
        click.option("-4", "--ipv4", is_flag=True, help="Use IPv4 addresses only."),
        click.option("-6", "--ipv6", is_flag=True, help="Use IPv6 addresses only."),
    )(function)


def ip_version(*, ipv4: bool, ipv6: bool) -> Literal[4, 6] | None:
    """Return the IP version to restrict addresses to; None for both versions.

    Raises:
        click.UsageError: both options were given.
    """
    if ipv4 and ipv6:
        raise click.UsageError("-4 and -6 cannot be combined; give one of them")
    return 4 if ipv4 else 6 if ipv6 else None
