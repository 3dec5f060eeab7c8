"""The contents of the reference and the manual pages, taken from the commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from echo_client.cli import echo_client
from echo_core.command_line.arguments import Command, Example
from echo_core.command_line.option_groups import Row
from echo_load.cli import echo_load
from echo_server.cli import echo_server

_EXIT_CODES = "Exit codes: "


@dataclass(frozen=True)
class Page:
    """The description of a command.

    Attributes:
        name: the command with the group that it is in, such as `echo-load run`.
        summary: a sentence.
        usage: the arguments, such as `[OPTIONS] [TARGET]...`.
        paragraphs: the description, without the exit codes.
        exit_codes: the exit codes, each with what it means.
        rows: the options, by groups.
        examples: command lines.
        subcommands: the pages of the commands in the group, if it is one.
    """

    name: str
    summary: str
    usage: str
    paragraphs: Sequence[str]
    exit_codes: Sequence[tuple[str, str]]
    rows: Mapping[str, Sequence[Row]]
    examples: Sequence[Example]
    subcommands: Sequence[Page]


def pages() -> Iterator[Page]:
    """Yield the pages of all commands, each group before its commands."""
    for name, command in (
        ("echo-server", echo_server),
        ("echo-client", echo_client),
        ("echo-load", echo_load),
    ):
        yield from _below(_page(name, command))


def _below(page: Page) -> Iterator[Page]:
    yield page
    for subcommand in page.subcommands:
        yield from _below(subcommand)


def _page(name: str, command: click.Command) -> Page:
    context = click.Context(command, info_name=name, **command.context_settings)
    texts = inspect.cleandoc(command.help or "").split("\n\n")
    paragraphs = [" ".join(text.split()) for text in texts]
    codes = [text for text in paragraphs if text.startswith(_EXIT_CODES)]
    return Page(
        name=name,
        summary=command.get_short_help_str(limit=200),
        usage=" ".join(command.collect_usage_pieces(context)),
        paragraphs=[text for text in paragraphs if text not in codes],
        exit_codes=[code for text in codes for code in _exit_codes(text)],
        rows=_rows(command, context),
        examples=command.examples if isinstance(command, Command) else (),
        subcommands=[
            _page(f"{name} {own}", subcommand)
            for own, subcommand in sorted(
                command.commands.items() if isinstance(command, click.Group) else ()
            )
        ],
    )


def _rows(command: click.Command, context: click.Context) -> dict[str, list[Row]]:
    if isinstance(command, Command):
        return command.help_rows(context)
    records = [one.get_help_record(context) for one in command.get_params(context)]
    return {"Options": [Row(*record) for record in records if record is not None]}


def _exit_codes(text: str) -> Iterator[tuple[str, str]]:
    """Yield the codes and meanings of `Exit codes: 0 passed, 1 failed.`."""
    for item in re.split(r",\s+(?=\d+ )", text.removeprefix(_EXIT_CODES).removesuffix(".")):
        code, _, meaning = item.partition(" ")
        yield code, meaning
