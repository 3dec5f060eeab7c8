"""`echo-load`: the group of commands."""

from __future__ import annotations

import click

from echo_core.command_line import program, settings
from echo_core.command_line.option_groups import Row, write_rows
from echo_load.commands.capacity import capacity
from echo_load.commands.compare import compare
from echo_load.commands.completion import completion
from echo_load.commands.hold import hold
from echo_load.commands.idle import idle
from echo_load.commands.lab import lab
from echo_load.commands.report import report
from echo_load.commands.run import run
from echo_load.commands.schema import schema
from echo_load.commands.stress import stress
from echo_load.commands.swarm import swarm
from echo_load.commands.watch import watch

# The commands, as the help groups them.
_COMMANDS = {
    "Tests": (run, stress, hold, swarm),
    "Limits": (capacity, idle, watch),
    "Results": (report, compare, schema),
    "Other commands": (lab, completion),
}


class _Program(click.Group):
    """A group of commands whose help lists them by purpose."""

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands to the help."""
        rows = {
            purpose: [Row(one.name or "", one.get_short_help_str(limit=100)) for one in commands]
            for purpose, commands in _COMMANDS.items()
        }
        write_rows(rows, formatter)


@click.group(cls=_Program, context_settings=settings.command_settings("ECHO_LOAD"))
@program.version_option
def echo_load() -> None:
    """Test echo services: check every reply, and measure throughput and latency.

    Every option of a command can also be set in the environment, and so can the target:
    ECHO_LOAD_CONNECTIONS=500, ECHO_LOAD_TARGETS=10.0.0.7:50007.

    `echo-load COMMAND --help` lists the options of a command.
    """


for commands in _COMMANDS.values():
    for one in commands:
        echo_load.add_command(one)
