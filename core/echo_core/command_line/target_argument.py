"""The argument that names the services to connect to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from echo_core.command_line import option_types
from echo_core.command_line.option_groups import Decorator, group

_FORMS = (
    "HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix:///PATH or unix://@NAME "
    "(in Linux's abstract namespace); the port is 50007 if omitted."
)


class TargetArgument(click.Argument):
    """An argument for targets, which can also be set like an option.

    Args:
        declarations: the name of the function's parameter.
        meaning: the text in the help.
        setting: the name in configuration files, and of the environment variable, which begins with
            the program's prefix.
        **attributes: further attributes of `click.Argument`.
    """

    def __init__(
        self, declarations: Sequence[str], *, meaning: str, setting: str, **attributes: Any
    ) -> None:
        super().__init__(declarations, type=option_types.TARGET, **attributes)
        self.meaning = meaning
        self.setting = setting

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the argument and its meaning."""
        return self.make_metavar(ctx), self.meaning

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, Any]
    ) -> tuple[Any, ParameterSource]:
        """Return the text of the target, or those of the targets, and where it comes from.

        Raises:
            click.UsageError: the environment or the configuration file has several targets for a
                command that takes one.
        """
        value, source = super().consume_value(ctx, opts)
        is_set = source in {ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP}
        if is_set and not ctx.resilient_parsing:
            value = self._settled(ctx, value, source)
        return value, source

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the target, or a tuple of the targets.

        Raises:
            click.UsageError: a value is not a target, or a target is missing.
        """
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter as error:
            raise click.UsageError(
                f"Missing argument '{self.human_readable_name}'; give HOST:PORT, or set "
                f"{self.envvar} or {self.setting} in the file of --config",
                ctx,
            ) from error

    def _settled(self, ctx: click.Context, value: Any, source: ParameterSource) -> Any:
        """Return the value that the environment or a file sets, as one target or a list."""
        targets = value.split() if isinstance(value, str) else list(value)
        if self.nargs != 1:
            return targets
        if len(targets) > 1:
            in_file = f"{self.setting} in the file of --config"
            name = in_file if source is ParameterSource.DEFAULT_MAP else self.envvar
            raise click.UsageError(
                f"the command takes one target, and {name} is set to {len(targets)}: "
                f"{', '.join(map(str, targets))}",
                ctx,
            )
        return targets[0] if targets else value


def targets_argument(
    *, setting: str, meaning: str = "", metavar: str = "[TARGET]...", **attributes: Any
) -> Decorator:
    """Return a decorator that adds an argument for targets, in the group "Target".

    Args:
        setting: the name in configuration files and in the environment.
        meaning: what to say in the help after the forms that a target can have.
        metavar: the argument in the help.
        **attributes: attributes of `click.Argument`. Without `nargs` the argument takes any number
            of targets.
    """
    several = attributes.get("nargs", -1) == -1
    return group(
        "Target",
        click.argument(
            "targets" if several else "target",
            cls=TargetArgument,
            metavar=metavar,
            setting=setting,
            meaning=f"{_FORMS} {meaning}".strip(),
            **{"nargs": -1, **attributes},
        ),
    )
