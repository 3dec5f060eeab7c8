"""Sources of a command's settings: flags, the environment, the `--config` file and defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from echo_core.command_line import environment, option_types
from echo_core.command_line.option_groups import GENERAL, group
from echo_core.command_line.target_argument import TargetArgument
from echo_core.errors import EchoswarmError, ExitCode

_CONFIG_FILE = "echo_core.command_line.settings.config_file"


class UnreadableConfigError(EchoswarmError):
    """A configuration file is missing, is not TOML, or sets an option that does not exist."""

    exit_code = ExitCode.USAGE


def command_settings(environment_prefix: str) -> dict[str, Any]:
    """Return the context settings that all commands share, to pass to `@click.command`.

    An option takes its value from the first of these that gives one: the command line, the
    environment (`ECHO_SERVER_PORT`), the file of `--config`, the default.
    """
    return {
        "auto_envvar_prefix": environment_prefix,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    }


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--config FILE.toml`, whose keys are long options and the target."""
    option = click.option(
        "--config",
        metavar="FILE.toml",
        type=option_types.File(),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="Read options from a TOML file; flags and environment variables override it.",
    )
    return group(GENERAL, option)(function)


def config_file(context: click.Context | None = None) -> str | None:
    """Return the file given to a command with `--config`; None if there is none.

    Args:
        context: the context of the command; None for the current one.
    """
    found: str | None = (context or click.get_current_context()).meta.get(_CONFIG_FILE)
    return found


def _load_config(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    context.meta[_CONFIG_FILE] = value
    try:
        table = tomllib.loads(Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableConfigError(f"--config: {value}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # Not TOML, not UTF-8, a number with too many digits, or tables nested too deeply.
        raise UnreadableConfigError(f"--config: {value} is not valid TOML: {error}") from error
    known = {
        environment.long_name(parameter): parameter
        for parameter in environment.settable(context.command)
        if not (isinstance(parameter, click.Option) and (parameter.is_eager or parameter.hidden))
    }
    defaults: dict[str, Any] = {}
    for key, setting in table.items():
        parameter = known.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise UnreadableConfigError(
                f"--config: {value}: {key!r} is not an option of this command; the options are "
                f"{', '.join(sorted(known))}"
            )
        is_target = isinstance(parameter, TargetArgument)
        is_list = is_target or parameter.multiple
        settings = setting if isinstance(setting, list) and is_list else [setting]
        is_valid = all(_has_valid_type(parameter, item) for item in settings)
        if not is_valid or (is_target and not settings):
            raise UnreadableConfigError(
                f"--config: {value}: {key} = {setting!r} is not a valid value of "
                f"{_spelling(parameter)}"
            )
        defaults[parameter.name] = settings if is_list else setting
    context.default_map = {**(context.default_map or {}), **defaults}


def _spelling(parameter: click.Option | TargetArgument) -> str:
    dashes = "--" if isinstance(parameter, click.Option) else ""
    return f"{dashes}{environment.long_name(parameter)}"


def _has_valid_type(parameter: click.Option | TargetArgument, setting: object) -> bool:
    if isinstance(setting, str) and "\0" in setting:
        # A command line or the environment could not contain it either.
        return False
    if isinstance(parameter, TargetArgument):
        return isinstance(setting, str)
    return isinstance(setting, bool if parameter.is_flag else (str, int, float)) and (
        parameter.is_flag or not isinstance(setting, bool)
    )
