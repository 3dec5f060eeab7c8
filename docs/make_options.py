"""Writes docs/options.md, the reference of all options, from the commands themselves.

python docs/make_options.py [FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from echo_client.cli import echo_client
from echo_core.command_line import environment
from echo_load.cli import echo_load
from echo_load.swarm.options import INSECURE, OPTIONS, variable
from echo_server.cli import echo_server

_REFERENCE = Path(__file__).parent / "options.md"
_BEGINNING = """\
# Options

All options of all commands, as `--help` shows them; `make reference` generates this page. How
flags, environment variables and TOML files combine is described in [settings.md](settings.md).
"""
_HEAD = "| option | environment | meaning |\n|---|---|---|\n"


def reference() -> str:
    """The whole page."""
    commands: list[tuple[str, click.Command]] = [
        ("echo-server", echo_server),
        ("echo-client", echo_client),
    ]
    commands += _below("echo-load", echo_load)
    return "\n".join([_BEGINNING, *(_section(name, command) for name, command in commands)])


def _below(name: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group, and of the groups in it, with their names."""
    for own, command in sorted(group.commands.items()):
        whole = f"{name} {own}"
        if isinstance(command, click.Group):
            yield from _below(whole, command)
        else:
            yield whole, command


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, **command.context_settings)
    rows = list(_rows(command, context))
    said = command.get_short_help_str(limit=200)
    if name == "echo-load swarm":
        said += " All of locust's own options work as well: `locust --help`."
        rows += _swarm_rows()
    return f"## {name}\n\n{said}\n\n{_HEAD}" + "".join(rows)


def _rows(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None:
            continue
        names, meaning = record
        named = ""
        if isinstance(parameter, click.Option) and parameter.name != "version":
            named = f"`{environment.variable(context.auto_envvar_prefix or '', parameter)}`"
        yield _row(names, named, meaning)


def _swarm_rows() -> list[str]:
    rows = [
        _row(
            f"--{name} VALUE",
            f"`{variable(name)}`",
            f"{meaning}  [default: {default}]" if default else meaning,
        )
        for name, default, meaning in OPTIONS
    ]
    name, meaning = INSECURE
    return [*rows, _row(f"--{name}", f"`{variable(name)}`", meaning)]


def _row(names: str, named: str, meaning: str) -> str:
    meaning = " ".join(meaning.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return f"| `{names.replace('|', chr(92) + '|')}` | {named} | {meaning} |\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else _REFERENCE).write_text(reference(), encoding="utf-8")
