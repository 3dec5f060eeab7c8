"""The environment variables that set a command's options, and a check for misspelt ones."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator

import click

from echo_core.command_line.target_argument import TargetArgument
from echo_core.errors import EchoswarmError, ExitCode

# The variables that Kubernetes sets in every container for each service ("service links"), and
# Docker for each linked container:
# SERVICE_SERVICE_HOST, SERVICE_SERVICE_PORT[_NAME], SERVICE_PORT_N_PROTOCOL[_PROTO|_PORT|_ADDR].
_LINK = r"(?:_\w+?)?_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
# They also set SERVICE_PORT, whose value is such an address.
_LINK_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://\S+")


class UnknownVariableError(EchoswarmError):
    """An environment variable has a command's prefix but does not set any of its options."""

    exit_code = ExitCode.USAGE


def long_name(parameter: click.Option | TargetArgument) -> str:
    """Return the longest spelling of an option without its leading dashes, or a target's name."""
    if isinstance(parameter, TargetArgument):
        return parameter.setting
    return max(parameter.opts, key=len).lstrip("-")


def variable(prefix: str, parameter: click.Option | TargetArgument) -> str:
    """Return the name of the environment variable that sets an option or a target."""
    return f"{prefix}_{long_name(parameter).replace('-', '_')}".upper()


def given_variable(prefix: str, parameter: click.Option | TargetArgument) -> str:
    """Return the name of the environment variable that does set an option or a target.

    It is the one named after the option, or the one named after the function's parameter.
    """
    named = variable(prefix, parameter)
    return named if os.environ.get(named) else f"{prefix}_{parameter.name}".upper()


def settable(command: click.Command) -> Iterator[click.Option | TargetArgument]:
    """Yield what the environment can set: options and targets of a command and its subcommands."""
    for parameter in command.params:
        if isinstance(parameter, click.Option | TargetArgument):
            yield parameter
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            yield from settable(subcommand)


def name_variables(command: click.Command, prefix: str) -> None:
    """Let each option, and the target, be set by the environment variable named after it.

    click names an option's variable after the function's parameter; that name works as well.
    """
    for parameter in settable(command):
        parameter.envvar = variable(prefix, parameter)


def drop_service_links(prefix: str) -> None:
    """Remove the service links of services that are named like a command from the environment.

    The links of a service named `echo-server` or `echo-server-admin` would set options, or be taken
    for options that do not exist, in every container of its namespace and in their child processes.
    """
    link = re.compile(f"{prefix}{_LINK}")
    links = {name for name in os.environ if link.fullmatch(name)}
    for name, value in os.environ.items():
        # This may be an option's variable too; with other links of the same service it is a link.
        if name.startswith(prefix) and name.endswith("_PORT") and _LINK_ADDRESS.fullmatch(value):
            service = name.removesuffix("_PORT")
            beside = re.compile(rf"{service}_(?:SERVICE_HOST|PORT_\d+_\w+)")
            if any(beside.fullmatch(other) for other in links):
                links.add(name)
    for name in links:
        del os.environ[name]


def refuse_unknown_variables(command: click.Command, prefix: str) -> None:
    """Check that each environment variable with a command's prefix sets one of its options.

    Raises:
        UnknownVariableError: a variable sets no option.
    """
    known = {variable(prefix, parameter) for parameter in settable(command)}
    parameters = {
        f"{prefix}_{str(option.name).upper()}"
        for option in settable(command)
        if isinstance(option, click.Option)
    }
    refuse_unknown(prefix, known, parameters)


def refuse_unknown(prefix: str, variables: Iterable[str], others: Iterable[str] = ()) -> None:
    """Check that each environment variable with a prefix is a known one.

    Args:
        prefix: the prefix, without the underscore after it.
        variables: the known variables, suggested where a name is misspelt.
        others: variables that are accepted, too, but never suggested.

    Raises:
        UnknownVariableError: a variable is not known.
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
