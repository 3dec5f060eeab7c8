"""`echo-load completion`: print a script with which a shell completes command lines."""

from __future__ import annotations

import click

from echo_core.command_line import settings
from echo_core.command_line.arguments import Command, Example
from echo_core.command_line.completion import SHELLS, Shell, script

_PROGRAMS = ("echo-server", "echo-client", "echo-load")
_EXAMPLES = (
    Example("In ~/.bashrc", "source <(echo-load completion bash)"),
    Example("In ~/.zshrc, after compinit", "source <(echo-load completion zsh)"),
    Example("In ~/.config/fish/config.fish", "echo-load completion fish | source"),
)


@click.command(
    cls=Command,
    context_settings=settings.command_settings("ECHO_LOAD"),
    short_help="Print a script with which a shell completes command lines.",
    examples=_EXAMPLES,
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: Shell) -> None:
    """Print a script with which a shell completes the arguments of all three programs.

    Commands, options, their values and the names of files are completed.
    """
    for program in _PROGRAMS:
        click.echo(script(program, shell))
