"""`echo-load schema`: what a result looks like, for programs."""

from __future__ import annotations

import click

from echo_core import command
from echo_core.arguments import Command


@click.command(
    cls=Command,
    context_settings=command.command_settings("ECHO_LOAD"),
    short_help="Print the JSON Schema of results.",
)
def schema() -> None:
    """Print the JSON Schema of results, as --json prints them and --output writes them."""
    with command.needs_extra("load"):
        from echo_load.results.result import json_schema
    click.echo(json_schema(), nl=False)
