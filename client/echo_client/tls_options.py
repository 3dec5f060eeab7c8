"""The TLS options of the commands that open connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from echo_core.command_line.option_groups import group
from echo_core.command_line.option_types import HOST, File


def tls_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a client's TLS options, as parameters `tls_ca`, `tls_cert` and so on."""
    file = File()
    options = (
        click.option(
            "--tls-ca",
            type=file,
            metavar="FILE",
            help="PEM file with the CA certificates to trust instead of the system's.",
        ),
        click.option(
            "--tls-cert",
            type=file,
            metavar="FILE",
            help="PEM file with the client certificate and its chain.",
        ),
        click.option(
            "--tls-key",
            type=file,
            metavar="FILE",
            help="PEM file with the private key, without a passphrase, if it is not in the "
            "--tls-cert file.",
        ),
        click.option(
            "--tls-server-name",
            type=HOST,
            metavar="NAME",
            help="Name that the server's certificate must be valid for; by default the target's "
            "host.",
        ),
        click.option(
            "--tls-insecure", is_flag=True, help="Do not verify the server's certificate."
        ),
    )
    return group("TLS", *options)(function)
