"""Refuses arguments of the command line that would have no effect."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.core import ParameterSource

# Each overrides those before it.
_PRECEDENCE = (
    ParameterSource.DEFAULT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.ENVIRONMENT,
    ParameterSource.COMMANDLINE,
)


class Command(click.Command):
    """A command of whose options each is given once, unless it says that it is repeatable.

    Of an option that is given twice click keeps the last value only.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line.

        Raises:
            click.UsageError: it is none of this command's, or gives an option twice.
        """
        typed = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            self._refuse_repeated(ctx, typed)
        return rest

    def _refuse_repeated(self, ctx: click.Context, typed: list[str]) -> None:
        _, _, given = self.make_parser(ctx).parse_args(args=typed)
        for parameter in given:
            if (
                isinstance(parameter, click.Option)
                and not (parameter.multiple or parameter.is_flag)
                and given.count(parameter) > 1
            ):
                is_list = "," in parameter.make_metavar(ctx)
                advice = "one list, separated by commas" if is_list else "it once"
                raise click.UsageError(
                    f"{spelled(parameter)} is given twice and takes one value; give {advice}",
                    ctx,
                )


def spelled(parameter: click.Parameter) -> str:
    """The longest spelling of an option, with its dashes."""
    return max(parameter.opts, key=len)


def refuse_unused(
    context: click.Context, names: Iterable[str], reason: str, *, because: str | None = None
) -> None:
    """Refuse options that would have no effect.

    Args:
        context: of the command.
        names: the options' parameters.
        reason: why each has no effect, and what would be right; it comes after the option's name.
        because: the parameter that takes their effect. What is set in the environment or the
            configuration file and has a lower precedence than it gives way, as everywhere. None
            if there is no such parameter: then only what was typed is refused.

    Raises:
        click.UsageError: one of them was given.
    """
    least = ParameterSource.COMMANDLINE
    if because is not None:
        least = context.get_parameter_source(because) or least
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if (
            parameter.name in names
            and source in _PRECEDENCE[1:]
            and _PRECEDENCE.index(source) >= _PRECEDENCE.index(least)
        ):
            raise click.UsageError(f"{spelled(parameter)} {reason}", context)
