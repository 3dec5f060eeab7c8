"""The environment variables of a command: its options, and misspelt ones."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator

import click

from echo_core.errors import EchoswarmError, ExitCode

# What Kubernetes tells every container of a service ("service links"), and Docker of a container:
# SERVICE_SERVICE_HOST, SERVICE_SERVICE_PORT[_NAME], SERVICE_PORT_N_PROTOCOL[_PROTO|_PORT|_ADDR].
_LINK = r"(?:_\w+?)?_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
# And SERVICE_PORT, whose value is such an address.
_LINK_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://\S+")


class UnknownVariableError(EchoswarmError):
    """A variable of the environment looks like a command's setting and is none."""

    exit_code = ExitCode.USAGE


def long_name(option: click.Option) -> str:
    """The name of an option, without dashes before it."""
    return max(option.opts, key=len).lstrip("-")


def variable(prefix: str, option: click.Option) -> str:
    """The variable that sets an option."""
    return f"{prefix}_{long_name(option).replace('-', '_')}".upper()


def options(command: click.Command) -> Iterator[click.Option]:
    """The options of a command and of all its subcommands."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield parameter
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            yield from options(subcommand)


def name_variables(command: click.Command, prefix: str) -> None:
    """Let each option be set by the variable that has its name.

    click names the variable after the function's parameter; where that differs, it goes on working.
    """
    for option in options(command):
        option.envvar = variable(prefix, option)


def drop_service_links(prefix: str) -> None:
    """Take variables out of the environment that are links to services named like a command.

    A service named `echo-server` or `echo-server-admin` would set options, or look like options
    that do not exist, in every container beside it, and in the processes that they start.
    """
    link = re.compile(f"{prefix}{_LINK}")
    links = {name for name in os.environ if link.fullmatch(name)}
    for name, value in os.environ.items():
        # An option may have this name too; beside links of the same service it is none.
        if name.startswith(prefix) and name.endswith("_PORT") and _LINK_ADDRESS.fullmatch(value):
            service = name.removesuffix("_PORT")
            beside = re.compile(rf"{service}_(?:SERVICE_HOST|PORT_\d+_\w+)")
            if any(beside.fullmatch(other) for other in links):
                links.add(name)
    for name in links:
        del os.environ[name]


def refuse_unknown_variables(command: click.Command, prefix: str) -> None:
    """Check that each variable with the prefix of a command sets an option.

    Raises:
        UnknownVariableError: one does not.
    """
    known = {variable(prefix, option) for option in options(command)}
    parameters = {f"{prefix}_{str(option.name).upper()}" for option in options(command)}
    refuse_unknown(prefix, known, parameters)


def refuse_unknown(prefix: str, variables: Iterable[str], others: Iterable[str] = ()) -> None:
    """Check that each variable of the environment with a prefix is one of these.

    Args:
        prefix: without the underscore behind it.
        variables: all that there are, and that may have been meant.
        others: those that are known as well.

    Raises:
        UnknownVariableError: one is not.
    """
    known = {name.removeprefix(f"{prefix}_") for name in variables}
    accepted = known | {name.removeprefix(f"{prefix}_") for name in others}
    for name in sorted(os.environ):
        setting = name.removeprefix(f"{prefix}_")
        if setting == name or setting in accepted:
            continue
        near = difflib.get_close_matches(setting, known, n=1)
        advice = f"did you mean {prefix}_{near[0]}?" if near else "--help lists the options"
        raise UnknownVariableError(f"the environment sets {name}, which is not an option; {advice}")
