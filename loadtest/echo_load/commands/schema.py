"""`echo-load schema`: print the JSON Schema of results."""

from __future__ import annotations

import click

from echo_core.command_line import program, settings
from echo_core.command_line.arguments import Command


@click.command(
    cls=Command,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Print the JSON Schema of results.",
)
def schema() -> None:
    """Print the JSON Schema of results, as --json prints them and --output writes them."""
    with program.needs_extra("load"):
        from echo_load.results.result import json_schema
    click.echo(json_schema(), nl=False)
