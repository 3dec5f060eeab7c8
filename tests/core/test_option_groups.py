"""The groups of options in helps."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from echo_client.cli import echo_client
from echo_core.command_line.arguments import Command
from echo_core.command_line.option_groups import GENERAL, group, group_of, groups, heading
from echo_load.cli import echo_load
from echo_server.cli import echo_server
from support.processes import CLIENT, LOAD, SERVER, run

PROGRAMS = {"echo-server": SERVER, "echo-client": CLIENT, "echo-load": LOAD}


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all commands in it, with their names."""
    yield name, command
    if isinstance(command, click.Group):
        for own, subcommand in command.commands.items():
            yield from commands(f"{name} {own}", subcommand)


ALL = dict(
    one
    for program in {
        "echo-server": echo_server,
        "echo-client": echo_client,
        "echo-load": echo_load,
    }.items()
    for one in commands(*program)
)
# The line above a group.
TITLE = re.compile(r"(\S[^:]*):")
GROUPED = ["echo-server", "echo-client"]
GROUPED += [f"echo-load {name}" for name in ("run", "stress", "hold", "capacity", "idle", "watch")]


def helped(name: str, columns: int) -> list[str]:
    """Return the lines of the help of a command on a terminal with this many columns."""
    program, *subcommands = name.split()
    ended = run([*PROGRAMS[program], *subcommands, "--help"], COLUMNS=str(columns))
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout.decode().splitlines()


@pytest.mark.parametrize("name", ALL)
def test_every_option_of_a_command_with_groups_is_in_one(name: str) -> None:
    command = ALL[name]
    found = groups(command, click.Context(command, **command.context_settings))
    if GENERAL not in found:
        assert name not in GROUPED
        return
    assert "Options" not in found
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert group_of(parameter), f"{name} {parameter.opts} is under no heading"
    assert list(found)[-1] == GENERAL
    assert {group_of(one) for one in found[GENERAL]} <= {GENERAL, None}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ALL)
def test_a_help_fits_the_terminal_and_lists_each_option_once(name: str, columns: int) -> None:
    lines = helped(name, columns)
    # The examples are copied from the help, and are not broken.
    assert max(map(len, lines)) <= min(columns, 100)
    command = ALL[name]
    listed = lines[next(number for number, line in enumerate(lines) if TITLE.fullmatch(line)) :]
    for parameter in command.get_params(click.Context(command, **command.context_settings)):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            option = re.escape(max(parameter.opts, key=len))
            defined = [one for one in listed if re.match(rf"  (-\w, )?{option}( |$)", one)]
            assert len(defined) == 1, (parameter.opts, defined)


@pytest.mark.parametrize("name", GROUPED)
def test_the_help_shows_groups_and_ends_with_examples(name: str) -> None:
    lines = helped(name, 80)
    titles = [found[1] for line in lines if (found := TITLE.fullmatch(line))]
    assert titles[-2:] == [GENERAL, "Examples"]
    assert len(titles) == len(set(titles)) >= 6
    examples = [line.strip() for line in lines[lines.index("Examples:") :]]
    assert [line for line in examples if line.startswith(f"{name} ")]


def test_the_help_of_run() -> None:
    lines = helped("echo-load run", 80)
    titles = [found[1] for line in lines if (found := TITLE.fullmatch(line))]
    assert titles == [
        *("Target", "Load", "Shape", "Payload", "Connections", "Generator", "TLS", "Verdict"),
        *("Output", "General", "Examples"),
    ]
    assert len([line for line in lines if line.startswith("    echo-load run ")]) == 4


def test_options_are_in_the_group_of_the_heading_or_list_that_they_are_declared_in() -> None:
    shared = group(
        "Shared",
        click.option("--shared1"),
        group("Inner", click.option("--inner1")),
        click.option("--shared2"),
    )

    @click.command(cls=Command)
    @heading("First")
    @click.option("--first1")
    @shared
    @click.option("--first2")
    @heading("Second")
    @click.option("--second1")
    @heading("First")
    @click.option("--first3")
    @click.option("--first4")
    @group("Second", click.option("--second2"))
    @click.option("--first5")
    def attempt() -> None:
        """Do nothing."""

    found = groups(attempt, click.Context(attempt))
    assert {name: [one.opts[0] for one in listed] for name, listed in found.items()} == {
        "First": ["--first1", "--first2", "--first3", "--first4", "--first5"],
        "Shared": ["--shared1", "--shared2"],
        "Inner": ["--inner1"],
        "Second": ["--second1", "--second2"],
        GENERAL: ["--help"],
    }


def test_an_option_under_no_heading_has_no_group() -> None:
    @click.command(cls=Command)
    @click.option("--above")
    @heading("Below")
    @click.option("--below")
    def attempt() -> None:
        """Do nothing."""

    above, below = attempt.params
    assert group_of(above) is None
    assert group_of(below) == "Below"


def test_a_command_with_few_options_has_no_groups() -> None:
    lines = helped("echo-load compare", 80)
    assert "Options:" in lines
    assert "General:" not in lines


def test_the_options_of_users_are_in_groups() -> None:
    lines = helped("echo-load swarm", 80)
    tls = lines[lines.index("TLS:") : lines.index("EchoBlockUser:")]
    options = [found[1] for line in tls if (found := re.match(r"  (--[\w-]+)", line))]
    assert options == [
        *("--tls-ca", "--tls-client-cert", "--tls-client-key", "--tls-server-name"),
        "--tls-insecure",
    ]
