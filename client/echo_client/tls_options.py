"""The TLS options of the commands that open connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from echo_core.command_line.option_types import HOST


def tls_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a client's TLS options, as parameters `tls_ca`, `tls_cert` and so on."""
    file = click.Path(dir_okay=False)
    options = (
        click.option(
            "--tls-ca",
            type=file,
            metavar="FILE",
            help="PEM file of the authorities to trust instead of the system's.",
        ),
        click.option(
            "--tls-cert",
            type=file,
            metavar="FILE",
            help="PEM file of the client certificate and its chain.",
        ),
        click.option(
            "--tls-key",
            type=file,
            metavar="FILE",
            help="PEM file of its key, without a passphrase, if it is in another file.",
        ),
        click.option(
            "--tls-server-name",
            type=HOST,
            metavar="NAME",
            help="Name the server's certificate must be valid for, if not the host's.",
        ),
        click.option("--tls-insecure", is_flag=True, help="Accept any certificate."),
    )
    for option in reversed(options):
        function = option(function)
    return function
