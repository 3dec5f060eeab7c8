"""Running a command as a program: one-line errors, exit codes and `--version`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from echo_core import standard_streams
from echo_core.command_line import environment, settings
from echo_core.command_line.option_groups import GENERAL, group
from echo_core.command_line.target_argument import TargetArgument
from echo_core.errors import EchoswarmError, ExitCode
from echo_core.interrupts import quit_on_interrupt, raise_on_interrupt
from echo_core.lazy import installation_of
from echo_core.limits import remedy_of

DISTRIBUTION = "echoswarm"

# The message of Python's RuntimeError when the system cannot start another thread.
_NO_THREAD = "can't start new thread"

# These work even when the environment is invalid.
_INFORMATIONAL = frozenset({"-h", "--help", "--version"})


class MissingExtraError(EchoswarmError):
    """A command needs a package from an optional dependency group that is not installed."""


def version_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--version` to a command."""
    option = click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the versions of echoswarm, Python and gevent, and the platform.",
    )
    return group(GENERAL, option)(function)


def run(command: click.Command, program: str, *, exhausted: ExitCode = ExitCode.FAILED) -> NoReturn:
    """Run a command as a program and exit; report every failure as one line and an exit code.

    Args:
        command: the command to run.
        program: the program's name, which begins error messages.
        exhausted: the exit code when the system has run out of descriptors, memory or threads.
    """
    standard_streams.prepare()
    raise_on_interrupt()
    code = _exit_code(command, program, exhausted)
    quit_on_interrupt()
    try:
        sys.stdout.flush()
    except OSError as error:
        if code == ExitCode.OK and not isinstance(error, BrokenPipeError):
            _print_error(program, None, str(error))
        code = code or ExitCode.FAILED
        standard_streams.abandon_output()
    # Nothing can be lost any more: let SIGINT end the process with the same exit code.
    quit_on_interrupt(int(code))
    sys.exit(int(code))


def _exit_code(command: click.Command, program: str, exhausted: ExitCode) -> int:
    """Run a command, report its failure on standard error, and return the exit code."""
    try:
        _read_environment(command)
        return command.main(prog_name=program, standalone_mode=False) or ExitCode.OK
    except click.ClickException as error:
        _print_click_error(program, error)
        return error.exit_code
    except EchoswarmError as error:
        _print_error(program, None, str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output has closed the pipe.
        return ExitCode.FAILED
    except (OSError, RuntimeError) as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        _print_error(program, None, shortage)
        return exhausted


def _shortage(error: Exception) -> str | None:
    """Return a message naming the exhausted resource and the remedy; None for other errors."""
    if isinstance(error, OSError) and (remedy := remedy_of(error)):
        return f"{error.strerror}; {remedy}"
    if str(error) == _NO_THREAD:
        return f"{error}; raise the limit on processes (ulimit -u)"
    return None


def _read_environment(command: click.Command) -> None:
    prefix = command.context_settings["auto_envvar_prefix"]
    environment.drop_service_links(prefix)
    environment.name_variables(command, prefix)
    if f"_{prefix}_COMPLETE" in os.environ:
        # The shell asks for completions, also where the environment is invalid.
        from echo_core.command_line import completion

        completion.register()
    elif not _INFORMATIONAL & set(sys.argv[1:]):
        environment.refuse_unknown_variables(command, prefix)


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import into a one-line error that names the extra to install.

    Raises:
        MissingExtraError: a package imported in the block is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("echo_"):
            raise
        raise MissingExtraError(
            f"the package {error.name!r} is missing; {installation_of(extra)}"
        ) from error


def _print_click_error(program: str, error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        # A group without a command: the message is its help.
        click.echo(error.format_message(), err=True)
    else:
        _print_error(program, error, _one_line(error))


def _print_error(program: str, error: click.ClickException | None, message: str) -> None:
    """Print an error as one line, which begins with the program and the subcommand, if known."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    print(f"{path}: error: {' '.join(message.split())}", file=sys.stderr)


def _one_line(error: click.ClickException) -> str:
    if type(error) is click.BadParameter and isinstance(error.param, click.Parameter):
        return f"{_source_of(error.param, error.ctx)}: {error.message}"
    return error.format_message()


def _source_of(parameter: click.Parameter, context: click.Context | None) -> str:
    """Return where the user has set a parameter: an option, a variable, or a key in a file."""
    source = context.get_parameter_source(parameter.name or "") if context is not None else None
    if isinstance(parameter, click.Option | TargetArgument) and context is not None:
        if source is ParameterSource.ENVIRONMENT:
            return environment.given_variable(context.auto_envvar_prefix or "", parameter)
        if source is ParameterSource.DEFAULT_MAP:
            key = environment.long_name(parameter)
            return f"--config: {settings.config_file(context)}: {key}"
    if isinstance(parameter, click.Argument):
        return parameter.human_readable_name.strip("[].")
    return max(parameter.opts, key=len)


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    import platform
    from importlib.metadata import version

    click.echo(
        f"{DISTRIBUTION} {version(DISTRIBUTION)} "
        f"(Python {platform.python_version()}, gevent {version('gevent')}, {platform.platform()})"
    )
    context.exit()
