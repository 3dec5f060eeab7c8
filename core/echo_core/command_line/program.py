"""Commands as programs: one-line errors, exit codes, versions."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from echo_core import standard_streams
from echo_core.command_line import environment
from echo_core.errors import EchoswarmError, ExitCode
from echo_core.interrupts import quit_on_interrupt, raise_on_interrupt

DISTRIBUTION = "echoswarm"

# What the system may run out of, and what helps.
_SHORTAGES = {
    errno.EMFILE: "raise the limit on open descriptors (ulimit -n)",
    errno.ENFILE: "the system has no descriptors left (fs.file-max)",
    errno.ENOMEM: "the system has no memory left",
}
# What Python's threading says where the system starts no more threads.
_NO_THREAD = "can't start new thread"

# Who asks what there is gets an answer, whatever the environment says.
_ASKING = frozenset({"-h", "--help", "--version"})


class MissingExtraError(EchoswarmError):
    """A command needs packages of an extra that is not installed."""


def version_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--version`."""
    return click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the versions of echoswarm, Python and gevent, and the platform.",
    )(function)


def run(command: click.Command, program: str, *, exhausted: ExitCode = ExitCode.FAILED) -> NoReturn:
    """Run a command as a program: every failure is one line on standard error and an exit code.

    Args:
        command: what to run.
        program: its name.
        exhausted: the exit code where the system has no descriptors, memory or threads for it.
    """
    standard_streams.prepare()
    raise_on_interrupt()
    code = _exit_code(command, program, exhausted)
    quit_on_interrupt()
    try:
        sys.stdout.flush()
    except OSError as error:
        if code == ExitCode.OK and not isinstance(error, BrokenPipeError):
            _complain(program, None, str(error))
        code = code or ExitCode.FAILED
        standard_streams.abandon_output()
    # All has been said.
    quit_on_interrupt(int(code))
    sys.exit(int(code))


def _exit_code(command: click.Command, program: str, exhausted: ExitCode) -> int:
    """Run a command and say what went wrong."""
    try:
        _read_environment(command)
        return command.main(prog_name=program, standalone_mode=False) or ExitCode.OK
    except click.ClickException as error:
        _complain(program, error, _one_line(error))
        return error.exit_code
    except EchoswarmError as error:
        _complain(program, None, str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output left.
        return ExitCode.FAILED
    except (OSError, RuntimeError) as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        _complain(program, None, shortage)
        return exhausted


def _shortage(error: Exception) -> str | None:
    """Name the resource that ran out, and the remedy; None if the error is of another kind."""
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return f"{error.strerror}; {_SHORTAGES[error.errno]}"
    if str(error) == _NO_THREAD:
        return f"{error}; raise the limit on processes (ulimit -u)"
    return None


def _read_environment(command: click.Command) -> None:
    prefix = command.context_settings["auto_envvar_prefix"]
    environment.drop_service_links(prefix)
    environment.name_variables(command, prefix)
    if not _ASKING & set(sys.argv[1:]):
        environment.refuse_unknown_variables(command, prefix)


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a missing package into a line that says which extra to install.

    Raises:
        MissingExtraError: an import in the block found no package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("echo_"):
            raise
        raise MissingExtraError(
            f"the package {error.name!r} is missing; install it with "
            f"pip install '{DISTRIBUTION}[{extra}]'"
        ) from error


def _complain(program: str, error: click.ClickException | None, message: str) -> None:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    print(f"{path}: error: {' '.join(message.split())}", file=sys.stderr)


def _one_line(error: click.ClickException) -> str:
    if type(error) is click.BadParameter and isinstance(error.param, click.Parameter):
        return f"{max(error.param.opts, key=len)}: {error.message}"
    return error.format_message()


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
