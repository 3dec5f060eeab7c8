"""Conventions of every command: configuration, versions, one-line errors, exit codes."""

from __future__ import annotations

import errno
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from echo_core import environment, standard_streams
from echo_core.endpoint import Endpoint, NetworkEndpoint, parse_target
from echo_core.errors import EchoswarmError, ExitCode, InvalidValueError
from echo_core.interrupts import quit_on_interrupt, raise_on_interrupt
from echo_core.units import (
    LONGEST_SECONDS,
    parse_count,
    parse_duration,
    parse_percentage,
    parse_rate,
    parse_size,
)

DISTRIBUTION = "echoswarm"
_CONFIG_FILE = "echo_core.command.config_file"

# What the system may run out of, and what helps.
_SHORTAGES = {
    errno.EMFILE: "raise the limit of open descriptors (ulimit -n)",
    errno.ENFILE: "the system has no descriptors left (fs.file-max)",
    errno.ENOMEM: "the system has no memory left",
}
# What Python's threading says where the system starts no more threads.
_NO_THREAD = "can't start new thread"

# Who asks what there is gets an answer, whatever the environment says.
_ASKING = frozenset({"-h", "--help", "--version"})


class UnreadableConfigError(EchoswarmError):
    """A configuration file is missing, no TOML, or sets what the command does not know."""

    exit_code = ExitCode.USAGE


class MissingExtraError(EchoswarmError):
    """A command needs packages of an extra that is not installed."""


class Parsed(click.ParamType[Any]):
    """An option type made of a function that reads text and raises `InvalidValueError`.

    Args:
        name: what the option takes, in a word.
        parse: the function.
        only_text: a number in a TOML file is refused: there 0o660 would be the number 432.

    Attributes:
        parse: the function, for texts that are no options of click's.
    """

    def __init__(self, name: str, parse: Callable[[str], Any], *, only_text: bool = False) -> None:
        self.name = name
        self.parse = parse
        self._only_text = only_text

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read text (or a number from a TOML file); pass on what is converted already."""
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            return value
        if self._only_text and not isinstance(value, str):
            self.fail(f"{value} is a number; write it in quotes", param, ctx)
        try:
            text = str(value)
        except ValueError:
            self.fail("a number of so many digits is none that it takes", param, ctx)
        try:
            return self.parse(text)
        except InvalidValueError as error:
            self.fail(str(error), param, ctx)


def whole_number(name: str, least: int, most: int) -> Parsed:
    """An option type for whole numbers, `10k` and `1M` included, between two bounds."""

    def parse(text: str) -> int:
        try:
            number = parse_count(text)
        except InvalidValueError:
            number = None
        if number is None or not least <= number <= most:
            raise InvalidValueError(f"{text!r} is not a whole number from {least} to {most}")
        return number

    return Parsed(name, parse)


def _duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > LONGEST_SECONDS:
        raise InvalidValueError(f"{text!r} is longer than a week (168h)")
    return seconds


def _positive_duration(text: str) -> float:
    seconds = _duration(text)
    if not seconds:
        raise InvalidValueError(f"{text!r} is no time at all; write it as in 10s or 250ms")
    return seconds


def _host(text: str) -> str:
    return NetworkEndpoint(text).host


def _rate(text: str) -> float:
    rate = parse_rate(text)
    if not rate:
        raise InvalidValueError(f"{text!r} is no rate at all; write it as in 100 or 10k")
    return rate


def _rate_of_bytes(text: str) -> int:
    size = parse_size(text.strip().removesuffix("/s"))
    if not size:
        raise InvalidValueError(f"{text!r} would let nothing through; write it as in 64KiB")
    return size


DURATION = Parsed("duration", _duration)
POSITIVE_DURATION = Parsed("duration", _positive_duration)
HOST = Parsed("host", _host)
PORT = whole_number("port", 0, 65535)
TARGET_PORT = whole_number("port", 1, 65535)
ENDPOINT = Parsed("endpoint", Endpoint.parse)
PERCENTAGE = Parsed("percentage", parse_percentage)
RATE = Parsed("rate", _rate)
RATE_OF_BYTES = Parsed("bytes/s", _rate_of_bytes)
TARGET = Parsed("target", parse_target)


def command_settings(environment_prefix: str) -> dict[str, Any]:
    """Context settings that all commands share; pass them to `@click.command`.

    Options take their value from the command line, then from the environment
    (`ECHO_SERVER_PORT`), then from `--config`, then from their default.
    """
    return {
        "auto_envvar_prefix": environment_prefix,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    }


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config FILE.toml`: a table of the command's own long options."""
    return click.option(
        "--config",
        metavar="FILE.toml",
        type=click.Path(dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="Read options from a TOML file; flags and the environment override it.",
    )(function)


def config_file() -> str | None:
    """The file that the command which runs now was given with `--config`."""
    found: str | None = click.get_current_context().meta.get(_CONFIG_FILE)
    return found


def tls_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a client may say of TLS, as parameters `tls_ca`, `tls_cert` and so on."""
    file = click.Path(dir_okay=False)
    options = (
        click.option(
            "--tls-ca",
            type=file,
            metavar="FILE",
            help="PEM file of the authorities to trust instead of the system's.",
        ),
        click.option(
            "--tls-cert",
            type=file,
            metavar="FILE",
            help="PEM file of the client certificate and its chain.",
        ),
        click.option(
            "--tls-key",
            type=file,
            metavar="FILE",
            help="PEM file of its key, without a passphrase, if it is in another file.",
        ),
        click.option(
            "--tls-server-name",
            type=HOST,
            metavar="NAME",
            help="Name the server's certificate must be valid for, if not the host's.",
        ),
        click.option("--tls-insecure", is_flag=True, help="Accept any certificate."),
    )
    for option in reversed(options):
        function = option(function)
    return function


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
        return f"{error}; raise the limit of processes (ulimit -u)"
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


def _load_config(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    context.meta[_CONFIG_FILE] = value
    try:
        table = tomllib.loads(Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableConfigError(f"--config: {value}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # Not TOML, not UTF-8, numbers of too many digits, nested too deeply.
        raise UnreadableConfigError(f"--config: {value} is not TOML: {error}") from error
    options = {
        environment.long_name(parameter): parameter
        for parameter in context.command.params
        if isinstance(parameter, click.Option) and not (parameter.is_eager or parameter.hidden)
    }
    defaults: dict[str, Any] = {}
    for key, setting in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None or option.name is None:
            known = ", ".join(sorted(options))
            raise UnreadableConfigError(
                f"--config: {value}: {key!r} is not an option here; it may set {known}"
            )
        settings = setting if isinstance(setting, list) and option.multiple else [setting]
        if not all(_suits(option, item) for item in settings):
            raise UnreadableConfigError(
                f"--config: {value}: {key} = {setting!r} is not a value that --{key} takes"
            )
        defaults[option.name] = settings if option.multiple else setting
    context.default_map = {**(context.default_map or {}), **defaults}


def _suits(option: click.Option, setting: object) -> bool:
    if isinstance(setting, str) and "\0" in setting:
        # Neither a command line nor the environment could hold it.
        return False
    return isinstance(setting, bool if option.is_flag else (str, int, float)) and (
        option.is_flag or not isinstance(setting, bool)
    )
