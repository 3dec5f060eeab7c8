"""`echo-load`: the group of commands."""

from __future__ import annotations

import click

from echo_core.command_line import program, settings
from echo_load.commands.capacity import capacity
from echo_load.commands.compare import compare
from echo_load.commands.hold import hold
from echo_load.commands.idle import idle
from echo_load.commands.lab import lab
from echo_load.commands.report import report
from echo_load.commands.run import run
from echo_load.commands.schema import schema
from echo_load.commands.stress import stress
from echo_load.commands.swarm import swarm
from echo_load.commands.watch import watch


@click.group(no_args_is_help=False, context_settings=settings.command_settings("ECHO_LOAD"))
@program.version_option
def echo_load() -> None:
    """Test echo services: check every reply, and measure throughput and latency.

    Every option of a command can also be set in the environment: ECHO_LOAD_CONNECTIONS=500.
    """


for one in (run, stress, hold, capacity, idle, watch, swarm, report, compare, lab, schema):
    echo_load.add_command(one)
